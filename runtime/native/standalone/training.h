/* The training of a standalone program: what runtime/training/trainer.py and runtime/feeding.py compute. */
#pragma once
#include <math.h>
#include <time.h>
#include "data.h"

static char *arena, *workspaces;
static int threads;

static void run(const Graph *graph, long examples) {
    const int error = nnc_run(graph->function, arena, examples, workspaces, graph->workspace_bytes, threads);
    if (error)
        fail(text_of("%d threads cannot be started", threads), "found", strerror(error), "hint", "try --threads 1",
            END);
}

static double number_at(long place, Type type, long index) {
    const char *from = arena + place + index * bytes_of_type[type];
    if (type == TYPE_F32) return *(const float *)from;
    if (type == TYPE_F64) return *(const double *)from;
    if (type == TYPE_I32) return *(const int *)from;
    if (type == TYPE_I64) return (double)*(const long long *)from;
    return *(const unsigned char *)from;
}

static void set_number(long place, Type type, long index, double number) {
    char *to = arena + place + index * bytes_of_type[type];
    if (type == TYPE_F32) *(float *)to = (float)number;
    else if (type == TYPE_F64) *(double *)to = number;
    else if (type == TYPE_I32) *(int *)to = (int)number;
    else if (type == TYPE_I64) *(long long *)to = (long long)number;
    else *to = (char)number;
}

/* Batches ---------------------------------------------------------------------------------------------------------- */

/* Fills the inputs of a graph with rows of a split: those at `count` numbers in `order`. */
static void fill_inputs(const Split *split, Use use, const long *order, long count) {
    for (int i = 0; i < INPUTS; ++i) {
        if (inputs[i].places[use] < 0) continue;
        const long bytes = inputs[i].size * bytes_of_type[inputs[i].type];
        char *to = arena + inputs[i].places[use];
        for (long n = 0; n < count; ++n)
            memcpy(to + n * bytes, split->arrays[i].values + split->places[order[n]] * bytes, (size_t)bytes);
    }
}

/* Ends the program if the graph found an index outside of its table. */
static void check_indices(const Split *split, Part part, Use use, const long *order, long count, const char *when) {
    for (const Check *check = checks; check < checks + CHECKS; ++check) {
        if (check->places[use] < 0) continue;
        const long long code = *(const long long *)(arena + check->places[use]);
        if (!code) continue;
        const long long counted = code >> 32, index = (code & 0xffffffffll) - 0x80000000ll; /* rounded down */
        const long long example = check->each ? (0x7fffffffll - counted) / check->each : count;
        const char *found = text_of("%lld", index);
        if (example < count) found = text_of("%s, in row %ld of the %s data", found, split->places[order[example]],
            part_names[part]);
        const char *message = "an index is outside its table";
        fail(*check->source ? text_of("%s: %s", check->source, message) : message, "expected",
             text_of("0 to %lld, the rows of the table", check->size - 1), "found", found, "note",
             *check->layer ? text_of("in %s, %s", check->layer, when) : when, END);
    }
}

static void require_finite(double loss, const char *where) {
    if (!isfinite(loss))
        fail(text_of("training diverged %s", where), "expected", "a finite loss", "found",
             isnan(loss) ? "nan" : loss > 0 ? "inf" : "-inf", "hint", "try a smaller learning rate", END);
}

/* NaN stays NaN. */
static double combined(Combine how, double a, double b) {
    if (how == ADD) return a + b;
    if (a != a || b != b) return NAN;
    return how == LARGEST ? (a > b ? a : b) : (a < b ? a : b);
}

static void add_totals(double *totals, Use use, bool first) {
    for (const Total *total = totals_of_metrics; total < totals_of_metrics + TOTALS; ++total)
        for (long i = 0; i < total->size; ++i) {
            const double number = number_at(total->places[use], total->type, i);
            double *to = totals + total->first + i;
            *to = first ? number : combined(total->combine, *to, number);
        }
}

/* Loss and metrics from means over `examples` and from totals. */
static void finish(double *results, const double *sums, const double *totals, long examples) {
    for (const Total *total = totals_of_metrics; total < totals_of_metrics + TOTALS; ++total)
        for (long i = 0; i < total->size; ++i) set_number(total->place, total->last_type, i, totals[total->first + i]);
    if (TOTALS) run(&metrics_graph, 1);
    for (int f = 0; f < FIGURES; ++f) {
        const Figure *figure = &figures[f];
        if (figure->place < 0) results[figure->first] = sums[f] / (double)examples;
        for (long i = 0; figure->place >= 0 && i < figure->rows * figure->columns; ++i)
            results[figure->first + i] = number_at(figure->place, figure->last_type, i);
    }
}

/* Runs a graph over a part of the data in an order, `size` examples at a time; `results` gets loss and metrics. */
static void run_batches(const Graph *graph, Part part, Use use, const long *order, long size, int epoch,
    double *results) {
    const Split *split = &splits[part];
    double sums[FIGURES] = {0}, *totals = zeroed((TOTAL_NUMBERS + 1) * sizeof *totals);
    const long steps = (split->rows + size - 1) / size;
    for (long start = 0, step = 1; start < split->rows; start += size, ++step) {
        const long count = smaller(size, split->rows - start);
        if (graph->first_example >= 0) *(long long *)(arena + graph->first_example) = start;
        fill_inputs(split, use, order + start, count);
        run(graph, count);
        const char *word = use == TRAIN ? "step" : "batch";
        if (CHECKS) {
            const char *when = text_of("epoch %d, %s %ld of %ld", epoch, word, step, steps);
            check_indices(split, part, use, order + start, count, when);
            free((char *)when);
        }
        for (int f = 0; f < FIGURES; ++f) {
            if (figures[f].places[use] < 0) continue;
            const double number = number_at(figures[f].places[use], figures[f].type, 0);
            if (use == TRAIN && f == 0 && !isfinite(number))
                require_finite(number, text_of("in epoch %d, step %ld of %ld", epoch, step, steps));
            const volatile double product = (double)count * number; /* rounded before it is added, as in Python */
            sums[f] += product;
        }
        add_totals(totals, use, start == 0);
    }
    finish(results, sums, totals, split->rows);
    free(totals);
}

static void train_epoch(int epoch, double *results) {
    long *order = whole_numbers(splits[TRAINING].rows);
    if (SHUFFLE) permute(order, splits[TRAINING].rows, SEED, epoch, SHUFFLE_STREAM);
    run_batches(&train_graph, TRAINING, TRAIN, order, BATCH, epoch, results);
    free(order);
}

static void evaluate_part(Part part, long size, int epoch, double *results) {
    long *order = whole_numbers(splits[part].rows);
    if (prepare_graph.function) run(&prepare_graph, 1);
    run_batches(&evaluate_graph, part, EVALUATE, order, size, epoch, results);
    free(order);
    require_finite(results[0], text_of("on the %s data after epoch %d", part_names[part], epoch));
}

/* The result of an epoch and where the run is ---------------------------------------------------------------------- */

typedef struct {
    int epoch;
    double seconds;
    double results[PARTS][RESULTS];
} Epoch;

static struct {
    int epoch, best_epoch, kept; /* kept: of the last epochs */
    double best_loss;
    Epoch *history; /* one after another, the oldest first */
} position = {.best_loss = INFINITY};

/* How many epochs a checkpoint has (runtime/training/results.py). */
static int most_kept(void) {
    const long numbers = 2 + RESULTS * (VALIDATION > 0 ? 3 : 2), most = 100000 / numbers;
    return most < 1 ? 1 : most > 1000 ? 1000 : (int)most;
}

static void add_epoch(const Epoch *result) {
    const double loss = result->results[VALIDATION > 0 ? VALIDATING : TESTING][0];
    position.epoch = result->epoch;
    if (loss < position.best_loss) position.best_loss = loss, position.best_epoch = result->epoch;
    if (!position.history) position.history = zeroed((size_t)most_kept() * sizeof(Epoch));
    if (position.kept == most_kept())
        memmove(position.history, position.history + 1, (size_t)--position.kept * sizeof(Epoch));
    position.history[position.kept++] = *result;
}

static bool is_final(int epochs) {
    return position.epoch >= epochs || (PATIENCE && position.epoch - position.best_epoch >= PATIENCE);
}

static double seconds_now(void) { return (double)nanoseconds() * 1e-9; }

static Epoch next_epoch(long evaluated_at_once, double began) {
    Epoch result = {.epoch = position.epoch + 1};
    train_epoch(result.epoch, result.results[TRAINING]);
    if (VALIDATION > 0) evaluate_part(VALIDATING, evaluated_at_once, result.epoch, result.results[VALIDATING]);
    evaluate_part(TESTING, evaluated_at_once, result.epoch, result.results[TESTING]);
    result.seconds = seconds_now() - began;
    return result;
}
