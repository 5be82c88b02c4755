/* The files of a standalone program: initial weights, a line for each epoch, and the checkpoint at the end. */
#pragma once
#include "sha256.h"
#include "training.h"

#define WEIGHTS_START "nnc weights 1\n"

/* A text that grows. */
typedef struct { char *text; size_t size, room; } Text;

__attribute__((format(printf, 2, 3))) static void add_text(Text *to, const char *format, ...) {
    va_list parts;
    va_start(parts, format);
    const size_t size = (size_t)vsnprintf(0, 0, format, parts);
    va_end(parts);
    if (to->size + size + 1 > to->room) {
        to->room = 2 * (to->size + size + 1);
        to->text = realloc(to->text, to->room);
        if (!to->text) fail("out of memory", END);
    }
    va_start(parts, format);
    vsnprintf(to->text + to->size, size + 1, format, parts);
    va_end(parts);
    to->size += size;
}

/* Weights ---------------------------------------------------------------------------------------------------------- */

/* The initial values of all variables, from a file that nnc wrote together with this program. */
static void read_weights(const char *path) {
    const char *hint = "it was written together with this program; --weights FILE names another place";
    if (!is_file(path))
        fail(text_of("there is no file \"%s\"", path), "expected", "the initial weights", "hint", hint, END);
    FILE *file = opened(path);
    char start[sizeof WEIGHTS_START + 65] = {0}, digits[65];
    Sha256 hash = sha256_begin();
    bool whole = fread(start, 1, sizeof WEIGHTS_START - 1 + 65, file) == sizeof WEIGHTS_START - 1 + 65;
    whole = whole && !strncmp(start, WEIGHTS_START WEIGHTS_SHA256 "\n", sizeof start);
    for (const Variable *v = variables; whole && v < variables + VARIABLES; ++v) {
        whole = fread(arena + v->place, 1, (size_t)v->bytes, file) == (size_t)v->bytes;
        sha256_add(&hash, arena + v->place, (size_t)v->bytes);
    }
    whole = whole && getc(file) == EOF;
    fclose(file);
    sha256_end(&hash, digits);
    if (!whole || strcmp(digits, WEIGHTS_SHA256))
        fail(text_of("\"%s\" does not belong to this program, or is damaged", path), "expected",
             text_of("weights of SHA-256 %.16s", WEIGHTS_SHA256), "hint", hint, END);
}

/* JSON ------------------------------------------------------------------------------------------------------------- */

/* A number that reads back the same; one that is not finite becomes `strict`, or as Python reads it. */
static void add_number(Text *to, double number, bool strict) {
    if (isfinite(number)) add_text(to, "%.17g", number);
    else add_text(to, "%s", strict ? "null" : isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity");
}

static void add_results(Text *to, const double *results, bool strict) {
    for (int f = 0; f < FIGURES; ++f) {
        const Figure *figure = &figures[f];
        add_text(to, "%s%s: %s", f ? ", " : "{", figure->quoted, figure->rank ? "[" : "");
        for (long i = 0; i < figure->rows * figure->columns; ++i) {
            const bool begins = figure->rank == 2 && i % figure->columns == 0;
            add_text(to, "%s%s", i == 0 ? "" : begins ? "], " : ", ", begins ? "[" : "");
            add_number(to, results[figure->first + i], strict);
        }
        add_text(to, "%s", figure->rank == 2 && figure->rows * figure->columns ? "]]" : figure->rank ? "]" : "");
    }
    add_text(to, "}");
}

/* {"epoch": 1, "train": ..., "test": ..., "seconds": ...} */
static void add_record(Text *to, const Epoch *epoch, bool strict) {
    add_text(to, "{\"epoch\": %d, \"train\": ", epoch->epoch);
    add_results(to, epoch->results[TRAINING], strict);
    add_text(to, ", \"test\": ");
    add_results(to, epoch->results[TESTING], strict);
    add_text(to, ", \"seconds\": ");
    add_number(to, epoch->seconds, strict);
    if (VALIDATION > 0) {
        add_text(to, ", \"validation\": ");
        add_results(to, epoch->results[VALIDATING], strict);
    }
    add_text(to, "}");
}

static void write_all(FILE *file, const char *path, const void *data, size_t size) {
    if (fwrite(data, 1, size, file) != size) fail(text_of("cannot write \"%s\"", path), "found", strerror(errno), END);
}

static FILE *created(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (!file) fail(text_of("cannot write \"%s\"", path), "found", strerror(errno), END);
    return file;
}

static void close_written(FILE *file, const char *path) {
    if (fclose(file)) fail(text_of("cannot write \"%s\"", path), "found", strerror(errno), END);
}

static void log_epoch(const char *path, const Epoch *epoch) {
    Text line = {0};
    add_record(&line, epoch, true);
    add_text(&line, "\n");
    FILE *file = created(path, "a");
    write_all(file, path, line.text, line.size);
    close_written(file, path);
    free(line.text);
}

/* The checkpoint: a safetensors file as runtime/training/checkpoint.py writes it ----------------------------------- */

/* The values of its metadata but for the hash, as JSON texts, sorted by name. */
enum { METADATA = 8 };
typedef struct { const char *names[METADATA]; Text values[METADATA]; } Metadata;

static Metadata metadata_now(void) {
    Metadata all = {{"best_epoch", "best_loss", "epoch", "format", "history", "model", "program", "settings"}, {{0}}};
    Text *to = all.values;
    add_text(&to[0], "%d", position.best_epoch);
    if (position.best_epoch) add_number(&to[1], position.best_loss, false);
    else add_text(&to[1], "null");
    add_text(&to[2], "%d", position.epoch);
    add_text(&to[3], "1");
    add_text(&to[4], "[");
    for (int i = 0; i < position.kept; ++i) {
        if (i) add_text(&to[4], ", ");
        add_record(&to[4], &position.history[i], false);
    }
    add_text(&to[4], "]");
    add_text(&to[5], "%s", MODEL_JSON);
    add_text(&to[6], "\"%s\"", PROGRAM_HASH);
    add_text(&to[7], "%s", SETTINGS_JSON);
    return all;
}

static void add_quoted(Text *to, const char *text) {
    add_text(to, "\"");
    for (; *text; ++text) add_text(to, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    add_text(to, "\"");
}

static void add_metadata(Text *to, const Metadata *metadata) {
    add_text(to, "{");
    for (int i = 0; i < METADATA; ++i) {
        add_text(to, "%s\"%s\": ", i ? ", " : "", metadata->names[i]);
        add_quoted(to, metadata->values[i].text);
    }
}

/* The header: names, types, shapes and places of all variables, and the metadata with a SHA-256 over everything. */
static Text header_now(void) {
    static const char *const names[] = {"BOOL", "U8", "I32", "I64", "F32", "F64"};
    const Metadata metadata = metadata_now();
    Text known = {0}, header = {0};
    add_metadata(&known, &metadata);
    add_text(&known, "}");
    Sha256 hash = sha256_begin();
    sha256_add(&hash, known.text, known.size);
    for (const Variable *v = variables; v < variables + VARIABLES; ++v) {
        sha256_add(&hash, v->quoted, strlen(v->quoted));
        sha256_add(&hash, arena + v->place, (size_t)v->bytes);
    }
    char digits[65];
    sha256_end(&hash, digits);
    add_text(&header, "{\"__metadata__\": ");
    add_metadata(&header, &metadata);
    add_text(&header, ", \"sha256\": \"%s\"}", digits);
    long from = 0;
    for (const Variable *v = variables; v < variables + VARIABLES; from += v++->bytes)
        add_text(&header, ", %s: {\"dtype\": \"%s\", \"shape\": %s, \"data_offsets\": [%ld, %ld]}", v->quoted,
            names[v->type],
                 v->shape, from, from + v->bytes);
    add_text(&header, "}");
    while (header.size % 8) add_text(&header, " ");
    for (int i = 0; i < METADATA; ++i) free(metadata.values[i].text);
    free(known.text);
    return header;
}

static void write_checkpoint(const char *path) {
    const char *temporary = text_of("%s.tmp", path);
    const Text header = header_now();
    unsigned char size[8];
    for (int i = 0; i < 8; ++i) size[i] = (unsigned char)(header.size >> 8 * i);
    FILE *file = created(temporary, "wb");
    write_all(file, path, size, 8);
    write_all(file, path, header.text, header.size);
    for (const Variable *v = variables; v < variables + VARIABLES; ++v)
        write_all(file, path, arena + v->place, (size_t)v->bytes);
    close_written(file, path);
    if (rename(temporary, path)) fail(text_of("cannot write \"%s\"", path), "found", strerror(errno), END);
    free(header.text);
}
