/* The command: reads its arguments and the data, trains, and prints what `nnc train` prints. */
#pragma once
#include "files.h"
#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

typedef struct {
    const char *data, *log, *save, *weights, *epochs, *threads;
} Arguments;

static const char usage[] =
    "usage: %s [DATA] [--epochs N] [--threads N] [--log LOSSES.jsonl] [--save FILE.safetensors] [--weights FILE]\n\n"
    "Trains the model %s.\n\n"
    "  DATA       a folder with the four files of MNIST, zipped or not, or with a .npy file for each input and target\n"
    "  --epochs   (default: %d)\n"
    "  --threads  (default: NNC_THREADS, or the processors that this process may use)\n"
    "  --log      add a line for each epoch to this file\n"
    "  --save     the checkpoint that is written at the end (default: %s)\n"
    "  --weights  the initial weights (default: %s, in the folder of the program or here)\n";

static Arguments read_arguments(int count, char **words) {
    Arguments given = {DATA, 0, SAVED, 0, 0, 0};
    const struct { const char *flag, **value; } flags[] = {
        {"--data", &given.data}, {"--log", &given.log}, {"--save", &given.save}, {"--weights", &given.weights},
        {"--epochs", &given.epochs}, {"--threads", &given.threads},
    };
    bool named = false;
    for (int i = 1; i < count; ++i) {
        const char **value = 0, *word = words[i];
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            printf(usage, words[0], MODEL, EPOCHS, SAVED, WEIGHTS);
            exit(0);
        }
        for (size_t f = 0; f < sizeof flags / sizeof *flags; ++f) {
            const size_t length = strlen(flags[f].flag);
            if (strncmp(word, flags[f].flag, length)) continue;
            if (word[length] == '=') word += length + 1, value = flags[f].value;
            else if (!word[length] && i + 1 < count) word = words[++i], value = flags[f].value;
            else if (!word[length]) fail(text_of("%s needs a value", word), END);
        }
        if (!value && *word == '-') fail(text_of("there is no flag %s", word), "hint", "--help lists the flags", END);
        if (!value && named) fail("there are two folders of data", "found", word, END);
        if (!value) value = &given.data, named = true;
        *value = word;
    }
    if (!given.data || !*given.data)
        fail("no data are named", "expected", text_of("%s FOLDER", words[0]), "hint", "--help says what may be in it",
            END);
    return given;
}

static int number_in(const char *text, const char *where, int low, int high) {
    char *end = 0;
    const long number = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
    if (!end || *end || number < low || number > high)
        fail(text_of("%s is not a number that is possible here", where), "expected",
             text_of("from %d to %d", low, high), "found",
             text_of("%.20s", text), END);
    return (int)number;
}

static int threads_of(const char *given) {
    const char *known = getenv("NNC_THREADS");
    if (given) return number_in(given, "--threads", 1, MOST_THREADS);
    if (known && *known) return number_in(known, "NNC_THREADS", 1, MOST_THREADS);
    long found = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) found = CPU_COUNT(&allowed);
#endif
    return found < 1 ? 1 : found > MOST_THREADS ? MOST_THREADS : (int)found;
}

/* The weights next to the program, or else here. */
static const char *weights_beside(const char *program) {
    const char *slash = strrchr(program, '/');
    const char *path = slash ? text_of("%.*s/%s", (int)(slash - program), program, WEIGHTS) : WEIGHTS;
    return is_file(path) ? path : WEIGHTS;
}

/* `12,345` */
static const char *with_commas(long number) {
    return number < 1000 ? text_of("%ld", number) : text_of("%s,%03ld", with_commas(number / 1000), number % 1000);
}

/* Four decimals, or an exponent for a number that they would not show. */
static void print_figure(const char *before, double value) {
    const double size = fabs(value);
    if (value != value) printf("%snan", before);
    else printf(value == 0 || (size >= 1e-3 && size < 1e6) ? "%s%.4f" : "%s%.2e", before, value);
}

static void print_data(void) {
    printf("%s rows to train", with_commas(splits[TRAINING].rows));
    if (VALIDATION > 0) printf(", %s for validation", with_commas(splits[VALIDATING].rows));
    printf(", %s to test", with_commas(splits[TESTING].rows));
    if (drawn) printf(" (drawn by seed %lld)", (long long)SEED);
    printf("; %s\n", ABOUT);
    fflush(stdout);
}

static void print_epoch(const Epoch *epoch) {
    for (int f = 0; f < FIGURES; ++f) {
        if (figures[f].rank) continue;
        printf("%s: ", figures[f].name);
        for (int part = TRAINING; part < PARTS; ++part)
            if (part != VALIDATING || VALIDATION > 0)
                print_figure(part == TRAINING ? "" : " / ", epoch->results[part][figures[f].first]);
        printf("\t");
    }
    printf("step %d  %.2f sec\n", epoch->epoch, epoch->seconds);
    fflush(stdout);
}

int main(int count, char **words) {
    const Arguments given = read_arguments(count, words);
    const int epochs = given.epochs ? number_in(given.epochs, "--epochs", 0, 1000000000) : EPOCHS;
    threads = threads_of(given.threads);
    const long rows = load_data(given.data);
    arena = zeroed(ARENA_BYTES);
    workspaces = zeroed((size_t)WORKSPACE_BYTES * (size_t)threads);
    read_weights(given.weights ? given.weights : weights_beside(words[0]));
    print_data();
    for (const double began = seconds_now(); !is_final(epochs);) {
        const Epoch result = next_epoch(smaller(BATCH, rows), began);
        add_epoch(&result);
        print_epoch(&result);
        if (given.log) log_epoch(given.log, &result);
    }
    write_checkpoint(given.save);
    return 0;
}
