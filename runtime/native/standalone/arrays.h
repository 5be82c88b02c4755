/* Arrays of files: .npy files in a folder, as NumPy writes them, or the four files of MNIST, zipped or not. */
#pragma once
#include <ctype.h>
#include <math.h>
#include <sys/stat.h>
#include "errors.h"
#include "tables.h"

#define MOST_DIMENSIONS 32
#define LONGEST_HEADER 4096

/* How values are stored: kind b, u, i or f as in .npy files, and bytes. */
typedef struct {
    char kind;
    int bytes;
    bool swapped, by_columns;
    int rank;
    long sizes[MOST_DIMENSIONS];
    long rows, size; /* size: values of a row */
} Stored;

/* Rows of values in the type of an input. */
typedef struct {
    char *values;
    long rows;
} Rows;

static bool is_folder(const char *path) {
    struct stat about;
    return !stat(path, &about) && S_ISDIR(about.st_mode);
}
static bool is_file(const char *path) {
    struct stat about;
    return !stat(path, &about) && S_ISREG(about.st_mode);
}

static FILE *opened(const char *path) {
    if (is_folder(path)) fail(text_of("\"%s\" cannot be read", path), "expected", "a file", "found", "a folder", END);
    FILE *file = is_file(path) || errno == ENOENT ? fopen(path, "rb") : 0;
    if (!file) fail(text_of("\"%s\" cannot be opened", path), "found", errno ? strerror(errno) : "no file", END);
    return file;
}

static const char *shape_text(const Stored *stored) {
    const char *text = "[";
    for (int i = 1; i < stored->rank; ++i) text = text_of("%s%s%ld", text, i > 1 ? ", " : "", stored->sizes[i]);
    return text_of("%s]", text);
}

/* Values ----------------------------------------------------------------------------------------------------------- */

/* A number of 16 bits (IEEE 754). */
static double half_number(unsigned bits) {
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

/* A stored value, as a whole number or as a float. */
typedef struct { bool whole; long long integer; double number; } Value;

static Value value_at(const Stored *stored, const unsigned char *from) {
    unsigned char turned[8];
    uint64_t bits = 0;
    for (int i = 0; i < stored->bytes; ++i) turned[i] = from[stored->swapped ? stored->bytes - 1 - i : i];
    for (int i = 0; i < stored->bytes; ++i) bits |= (uint64_t)turned[i] << 8 * i;
    if (stored->kind == 'f') {
        const double number = stored->bytes == 2 ? half_number((unsigned)bits)
            : stored->bytes == 4                 ? (double)float_of((uint32_t)bits)
                                                 : double_of(bits);
        return (Value){false, 0, number};
    }
    if (stored->kind == 'b') return (Value){true, bits != 0, 0};
    const int unused = 64 - 8 * stored->bytes;
    return (Value){true, stored->kind == 'u' ? (long long)bits : (long long)(bits << unused) >> unused, 0};
}

/* Writes a value in another type; false if that type does not have it. */
static bool write_value(Value value, Type type, char *to) {
    static const double low[] = {0, 0, -0x1p31, -0x1p63}, high[] = {2, 256, 0x1p31, 0x1p63};
    if (type == TYPE_F64) return memcpy(to, &value.number, 8), true;
    if (type == TYPE_F32) {
        const float number = (float)value.number;
        memcpy(to, &number, 4);
        return !isinf(number) || isinf(value.number);
    }
    if (!value.whole) {
        const bool inside = value.number >= low[type] && value.number < high[type];
        if (!inside || value.number != trunc(value.number)) return false;
        value.integer = (long long)value.number;
    }
    if (type < TYPE_I64 && (value.integer < low[type] || value.integer >= high[type])) return false;
    const int narrow = (int)value.integer;
    if (type == TYPE_I64) memcpy(to, &value.integer, 8);
    else if (type == TYPE_I32) memcpy(to, &narrow, 4);
    else *to = (char)narrow;
    return true;
}

static const char *shown(Value value) {
    return value.whole ? text_of("%lld", value.integer) : text_of("%g", value.number);
}

/* The place in the file of the n-th value in the order of rows. */
static long stored_place(const Stored *stored, long n) {
    if (!stored->by_columns) return n;
    long place = 0, step = 1, index[MOST_DIMENSIONS];
    for (int i = stored->rank - 1; i >= 0; --i) index[i] = n % stored->sizes[i], n /= stored->sizes[i];
    for (int i = 0; i < stored->rank; ++i) place += index[i] * step, step *= stored->sizes[i];
    return place;
}

/* Integers never become floats, since their scale is compiled into the step; bools only come from bools and floats. */
static void check_types(const Stored *stored, const Input *input, const char *label) {
    const bool to_float = input->type >= TYPE_F32, to_bool = input->type == TYPE_BOOL;
    const char kind = stored->kind == 'u' ? 'i' : stored->kind;
    if (kind == 'f' || kind == (to_bool ? 'b' : to_float ? 'f' : 'i')) return;
    const char *kinds = kind == 'b' ? "bools" : "whole numbers";
    fail(text_of("%s has the wrong type", label), "expected", type_names[input->type], "found",
         text_of("%s of %d bytes", kinds, stored->bytes), "hint",
             "write this program anew for data that are stored in this way",
         END);
}

/* The values of an array for an input: checked, in its type, rows one after another. */
static Rows rows_for(const Input *input, const Stored *stored, const unsigned char *from, const char *label) {
    check_types(stored, input, label);
    if (stored->size != input->size)
        fail(text_of("%s does not fit the model", label), "expected", text_of("examples of shape %s", input->shape),
            "found",
             text_of("examples of shape %s", shape_text(stored)), END);
    const long count = stored->rows * stored->size, bytes = bytes_of_type[input->type];
    Rows rows = {zeroed((size_t)(count * bytes)), stored->rows};
    if (input->type == TYPE_U8 && stored->kind == 'u' && stored->bytes == 1 && !stored->by_columns && !input->classes)
        return memcpy(rows.values, from, (size_t)count), rows;
    for (long n = 0; n < count; ++n) {
        const Value value = value_at(stored, from + stored_place(stored, n) * stored->bytes);
        if (input->type >= TYPE_F32 && !isfinite(value.number))
            fail(text_of("row %ld of %s is not finite", n / stored->size, label), "expected", "finite numbers", "found",
                 shown(value), END);
        if (!write_value(value, input->type, rows.values + n * bytes))
            fail(text_of("row %ld of %s is no value of %s", n / stored->size, label, type_names[input->type]), "found",
                 shown(value), END);
        if (input->classes && input->type < TYPE_F32) {
            const long long integer = value.whole ? value.integer : (long long)value.number;
            if (integer < 0 || integer >= input->classes)
                fail(text_of("row %ld of %s is out of range", n / stored->size, label), "expected",
                     text_of("whole numbers 0 to %lld", input->classes - 1), "found", shown(value), END);
        }
    }
    return rows;
}

/* .npy files ------------------------------------------------------------------------------------------------------- */

/* The text after `'key':` in a header; the header must have it once. */
static const char *field_of(const char *header, const char *key, const char *label) {
    const char *found = strstr(header, key);
    if (!found || strstr(found + 1, key)) fail(text_of("the header of %s is damaged", label), END);
    for (found += strlen(key); *found == ' ' || *found == ':'; ++found) continue;
    return found;
}

static void read_sizes(Stored *stored, const char *text, const char *label) {
    stored->rank = 0;
    if (*text++ != '(') fail(text_of("the shape of %s is damaged", label), END);
    for (; *text && *text != ')'; ++text) {
        if (*text == ' ' || *text == ',') continue;
        char *end = (char *)text;
        errno = 0;
        const long size = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
        if (size < 0 || errno || stored->rank == MOST_DIMENSIONS)
            fail(text_of("the shape of %s is damaged", label), END);
        stored->sizes[stored->rank++] = size;
        text = end - 1;
    }
    if (!stored->rank || !stored->sizes[0])
        fail(text_of("%s has too few rows", label), "expected", "at least 1 along the first axis", END);
}

/* The number of all values; the sizes fit the bytes of the file. */
static long count_values(Stored *stored, long bytes, const char *label) {
    long size = 1;
    bool fits = true;
    for (int i = 1; i < stored->rank; ++i) fits = fits && !__builtin_mul_overflow(size, stored->sizes[i], &size);
    stored->rows = stored->sizes[0], stored->size = size;
    long count = 0, needed = 0;
    fits = fits && !__builtin_mul_overflow(size, stored->rows, &count);
    fits = fits && !__builtin_mul_overflow(count, (long)stored->bytes, &needed) && needed == bytes;
    if (!fits)
        fail(text_of("%s is truncated, or longer than its header says", label), "expected",
             text_of("%ld rows of %ld values of %d bytes", stored->rows, size, stored->bytes), "found",
             text_of("%ld bytes of values", bytes), END);
    return count;
}

static void read_type(Stored *stored, const char *text, const char *label) {
    static const char *const known[] = {"b1", "u1", "u2", "i1", "i2", "i4", "i8", "f2", "f4", "f8"};
    const char quote = *text++;
    stored->swapped = *text == '>';
    text += *text == '<' || *text == '>' || *text == '|';
    for (size_t i = 0; quote == '\'' && i < sizeof known / sizeof *known; ++i)
        if (!strncmp(text, known[i], 2) && text[2] == '\'') {
            stored->kind = text[0], stored->bytes = text[1] - '0';
            return;
        }
    fail(text_of("%s has values that cannot be trained on", label), "expected",
         "uint8, uint16, int8 to int64, bool, float16, float32 or float64", "found", text_of("%.20s", text - 1), END);
}

static Rows read_npy(const char *path, const Input *input) {
    const char *label = text_of("array \"%s\" in \"%s\"", input->name, path);
    FILE *file = opened(path);
    unsigned char start[12] = {0};
    char header[LONGEST_HEADER + 1];
    const bool is_npy = fread(start, 1, 10, file) == 10 && !memcmp(start, "\x93NUMPY", 6) && start[6] >= 1 &&
        start[6] <= 3;
    if (!is_npy || (start[6] > 1 && fread(start + 10, 1, 2, file) != 2))
        fail(text_of("%s is not in the .npy format", label), "expected", "an array written by numpy.save", END);
    const unsigned long length = start[8] + 256ul * start[9]
        + (start[6] > 1 ? start[10] * 65536ul + start[11] * 16777216ul : 0);
    if (length > LONGEST_HEADER) fail(text_of("the header of %s is too long", label), END);
    if (fread(header, 1, length, file) != length) fail(text_of("the header of %s is damaged", label), END);
    header[length] = 0;
    Stored stored = {0};
    read_type(&stored, field_of(header, "'descr'", label), label);
    stored.by_columns = !strncmp(field_of(header, "'fortran_order'", label), "True", 4);
    read_sizes(&stored, field_of(header, "'shape'", label), label);
    const long begin = ftell(file);
    fseek(file, 0, SEEK_END);
    const long bytes = ftell(file) - begin;
    fseek(file, begin, SEEK_SET);
    const long count = count_values(&stored, bytes, label);
    unsigned char *data = zeroed((size_t)bytes);
    if (fread(data, (size_t)stored.bytes, (size_t)count, file) != (size_t)count)
        fail(text_of("%s cannot be read", label), "found", strerror(errno), END);
    fclose(file);
    const Rows rows = rows_for(input, &stored, data, label);
    free(data);
    return rows;
}

/* MNIST ------------------------------------------------------------------------------------------------------------ */

/* The path of a file of MNIST in a folder: zipped or not, with one of two spellings; 0 if there is none. */
static const char *mnist_path(const char *folder, const char *stem, int rank) {
    static const char *const forms[] = {"%s/%s-idx%d-ubyte", "%s/%s-idx%d-ubyte.gz", "%s/%s.idx%d-ubyte",
        "%s/%s.idx%d-ubyte.gz"};
    for (int i = 0; i < 4; ++i) {
        char path[4096];
        if (snprintf(path, sizeof path, forms[i], folder, stem, rank) < (int)sizeof path && is_file(path))
            return text_of("%s", path);
    }
    return 0;
}

/* The bytes of a file, unzipped by gzip if it is zipped; `close` is the function that closes it. */
static FILE *unzipped(const char *path, int (**close)(FILE *)) {
    FILE *file = opened(path);
    const int first = getc(file), second = getc(file);
    rewind(file);
    *close = fclose;
    if (first != 0x1f || second != 0x8b) return file;
    fclose(file);
    char *command = zeroed(4 * strlen(path) + 32), *to = command + sprintf(command, "gzip -dc -- '");
    for (const char *from = path; *from; ++from) to += *from == '\'' ? sprintf(to, "'\\''") : sprintf(to, "%c", *from);
    strcpy(to, "'");
    file = popen(command, "r");
    if (!file)
        fail(text_of("\"%s\" cannot be unzipped", path), "found", strerror(errno), "hint", "unzip it with gzip -d",
            END);
    free(command);
    *close = pclose;
    return file;
}

static Rows read_idx(const char *folder, const char *stem, int rank, const Input *input) {
    const char *path = mnist_path(folder, stem, rank);
    if (!path) fail(text_of("\"%s\" has only a part of MNIST", folder), "expected",
                    text_of("also %s-idx%d-ubyte, zipped or not", stem, rank), END);
    const char *label = text_of("\"%s\"", path);
    int (*close)(FILE *);
    FILE *file = unzipped(path, &close);
    unsigned char header[16] = {0};
    const size_t length = 4 + 4 * (size_t)rank;
    if (fread(header, 1, length, file) != length || header[0] || header[1] || header[2] != 8 || header[3] != rank)
        fail(text_of("%s is not an IDX file of bytes", label), "expected",
             text_of("00 00 08 %02d and %d sizes", rank, rank),
             END);
    Stored stored = {.kind = 'u', .bytes = 1, .rank = rank, .size = 1};
    for (int i = 0; i < rank; ++i) {
        const unsigned char *from = header + 4 + 4 * i;
        stored.sizes[i] = (long)from[0] << 24 | (long)from[1] << 16 | (long)from[2] << 8 | from[3];
        if (i) stored.size *= stored.sizes[i];
    }
    stored.rows = stored.sizes[0];
    if (stored.rows < 1 || stored.rows > 60000 || (rank == 3 && (stored.sizes[1] != 28 || stored.sizes[2] != 28)))
        fail(text_of("the header of %s does not fit its name", label), "expected", "up to 60000 rows of MNIST", "found",
             text_of("%ld rows of shape %s", stored.rows, shape_text(&stored)), END);
    const size_t bytes = (size_t)(stored.rows * stored.size);
    unsigned char *data = zeroed(bytes);
    const size_t found = fread(data, 1, bytes, file);
    const bool longer = getc(file) != EOF;
    if (close(file) || found != bytes || longer)
        fail(text_of("%s is %s", label, longer ? "longer than its header says" : "truncated or damaged"), "expected",
             text_of("%zu bytes of values", bytes), "found", text_of("%zu", found), END);
    const Rows rows = rows_for(input, &stored, data, label);
    free(data);
    return rows;
}
