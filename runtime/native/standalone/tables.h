/* The tables of a program: its variables, inputs, results and checks. Places are bytes from the start of the arena, -1
   for what a graph does not have. */
#pragma once
#include "step.h"

typedef enum { TYPE_BOOL, TYPE_U8, TYPE_I32, TYPE_I64, TYPE_F32, TYPE_F64 } Type;
static const long bytes_of_type[] = {1, 1, 4, 8, 4, 8};
static const char *const type_names[] = {"bool", "u8", "i32", "i64", "f32", "f64"};

typedef enum { TRAIN, EVALUATE, USES } Use;
typedef enum { TRAINING, VALIDATING, TESTING, PARTS } Part;
static const char *const part_names[] = {"training", "validation", "test"};

typedef struct {
    const char *name, *quoted; /* also as JSON */
    Type type;
    const char *shape; /* as JSON */
    long place, bytes;
} Variable;

typedef struct {
    const char *name;
    Type type;
    long size;         /* values of an example */
    const char *shape; /* of an example, as text */
    long long classes; /* valid values are 0 ... classes - 1; 0: all values */
    long places[USES];
} Input;

/* The loss or a metric: a mean over the examples, or what METRICS computes from the totals. */
typedef struct {
    const char *name, *quoted;
    int rank; /* 0: a number, 1: a vector, 2: a matrix */
    long rows, columns;
    long first; /* of its numbers in all results */
    Type type;
    long places[USES];
    long place; /* in METRICS, with the type of its results */
    Type last_type;
} Figure;

typedef enum { ADD, LARGEST, SMALLEST } Combine;
typedef struct {
    Type type;
    long size, first;
    Combine combine;
    long places[USES];
    long place; /* in METRICS */
    Type last_type;
} Total;

/* Where a graph reports an index outside of its table, as an i64 (runtime/program.py). */
typedef struct {
    long places[USES];
    const char *source, *layer;
    long long size, each;
} Check;

/* A graph as the pool runs it. */
typedef struct {
    GraphFunction function;
    long workspace_bytes; /* of each thread */
    long first_example;   /* place of an i64: the number of the first example of a batch; -1 if there is none */
} Graph;
