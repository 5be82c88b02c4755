/* The data of a program: the rows to train on, to test and maybe to validate with. */
#pragma once
#include "arrays.h"
#include "order.h"

#define TEST_SHARE (1.0 / 6)

/* Rows of the arrays of all inputs; `places` has the number of each in its file. */
typedef struct {
    Rows arrays[INPUTS];
    long *places, rows;
} Split;

static Split splits[PARTS];
static bool drawn; /* whether the seed drew the rows to test with */

static long *whole_numbers(long count) {
    long *numbers = zeroed((size_t)count * sizeof *numbers);
    for (long i = 0; i < count; ++i) numbers[i] = i;
    return numbers;
}

/* Sets a share of the rows apart: those that the seed draws, in ascending order; the others stay. */
static void set_apart(Split *split, Split *apart, double share_of_rows, long long stream) {
    const long rows = split->rows;
    long count = (long)((double)rows * share_of_rows + 1e-9);
    if (rows < 2) fail("too few rows to set some apart", "expected", "2 or more", "found", text_of("%ld", rows), END);
    count = count < 1 ? 1 : count > rows - 1 ? rows - 1 : count;
    long *order = zeroed((size_t)rows * sizeof *order), *places = split->places;
    bool *is_apart = zeroed((size_t)rows);
    permute(order, rows, SEED, 0, stream);
    for (long i = 0; i < count; ++i) is_apart[order[i]] = true;
    *apart = *split;
    apart->places = zeroed((size_t)count * sizeof *places);
    apart->rows = split->rows = 0;
    for (long i = 0; i < rows; ++i) {
        if (is_apart[i]) apart->places[apart->rows++] = places[i];
        else places[split->rows++] = places[i];
    }
    free(order), free(is_apart);
}

static void check_rows(Split *split, Part part, const char *folder) {
    for (int i = 0; i < INPUTS; ++i)
        if (split->arrays[i].rows != split->arrays[0].rows)
            fail(text_of("the %s arrays in \"%s\" have different numbers of rows", part_names[part], folder),
                "expected",
                 text_of("%ld rows, as in \"%s\"", split->arrays[0].rows, inputs[0].name), "found",
                 text_of("%ld rows in \"%s\"", split->arrays[i].rows, inputs[i].name), END);
    split->rows = split->arrays[0].rows;
    split->places = whole_numbers(split->rows);
}

static const char *npy_path(const char *folder, const Input *input, const char *suffix) {
    return text_of("%s/%s%s.npy", folder, input->name, suffix);
}

static void load_npy(const char *folder) {
    int separate = 0;
    for (int i = 0; i < INPUTS; ++i) {
        if (!is_file(npy_path(folder, &inputs[i], "")))
            fail(text_of("\"%s\" lacks an array", folder), "expected", text_of("a file %s.npy", inputs[i].name), END);
        separate += is_file(npy_path(folder, &inputs[i], "_test"));
    }
    for (int i = 0; i < INPUTS; ++i) {
        if (separate && !is_file(npy_path(folder, &inputs[i], "_test")))
            fail(text_of("array \"%s\" in \"%s\" has no counterpart", inputs[i].name, folder), "expected",
                 text_of("a file %s_test.npy: either all arrays have test rows, or none has", inputs[i].name), END);
        splits[TRAINING].arrays[i] = read_npy(npy_path(folder, &inputs[i], ""), &inputs[i]);
        if (separate) splits[TESTING].arrays[i] = read_npy(npy_path(folder, &inputs[i], "_test"), &inputs[i]);
    }
    drawn = !separate;
}

static bool is_mnist(const char *folder) {
    static const char *const stems[] = {"train-images", "train-labels", "t10k-images", "t10k-labels"};
    for (int i = 0; i < 4; ++i)
        if (mnist_path(folder, stems[i], i % 2 ? 1 : 3)) return true;
    return false;
}

static void load_mnist(const char *folder) {
    for (int i = 0; i < INPUTS; ++i) {
        const bool image = !strcmp(inputs[i].name, "image");
        if (!image && strcmp(inputs[i].name, "label"))
            fail("MNIST has no such array", "expected", "image and label", "found", inputs[i].name, END);
        const int rank = image ? 3 : 1;
        splits[TRAINING].arrays[i] = read_idx(folder, image ? "train-images" : "train-labels", rank, &inputs[i]);
        splits[TESTING].arrays[i] = read_idx(folder, image ? "t10k-images" : "t10k-labels", rank, &inputs[i]);
    }
}

/* Reads all rows of a folder, and sets rows apart to test and to validate with. The number of rows to train on before
   some are set apart to validate. */
static long load_data(const char *folder) {
    if (!is_folder(folder))
        fail(text_of("there is no folder \"%s\"", folder), "expected",
            "a folder with the four files of MNIST or with .npy files",
             "hint", strstr(folder, ".npz") ? "unzip FILE.npz -d FOLDER makes one of a .npz file" : 0, END);
    if (is_file(npy_path(folder, &inputs[0], ""))) load_npy(folder);
    else if (is_mnist(folder)) load_mnist(folder);
    else fail(text_of("\"%s\" has no data of this model", folder), "expected",
              text_of("%s.npy, or the four files of MNIST", inputs[0].name), END);
    check_rows(&splits[TRAINING], TRAINING, folder);
    if (drawn) set_apart(&splits[TRAINING], &splits[TESTING], TEST_SHARE, TEST_STREAM);
    else check_rows(&splits[TESTING], TESTING, folder);
    const long rows = splits[TRAINING].rows;
    if (VALIDATION > 0) set_apart(&splits[TRAINING], &splits[VALIDATING], VALIDATION, VALIDATION_STREAM);
    return rows;
}
