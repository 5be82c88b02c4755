/* Orders of examples: the permutations of NumPy's Generator with Philox, as runtime/feeding.py and
   runtime/datasets/splitting.py use them. */
#pragma once
#include "random.h"

#define SHUFFLE_STREAM (-1LL)
#define TEST_STREAM (-2LL)
#define VALIDATION_STREAM (-3LL)

typedef struct {
    long long seed, stream;
    int step;
    unsigned long long used; /* numbers of 32 bits */
    uint64_t words[4];
} Numbers;

static uint32_t next_number(Numbers *numbers) {
    const int place = (int)(numbers->used % BLOCK);
    if (place == 0)
        philox(numbers->seed, numbers->step, (unsigned long long)numbers->stream, numbers->used / BLOCK + 1, 0,
               numbers->words);
    ++numbers->used;
    return half_of(numbers->words, place);
}

/* A whole number from 0 to `last`, all with the same chance: numbers beyond are drawn again. */
static uint32_t number_up_to(Numbers *numbers, uint32_t last) {
    uint32_t mask = last, number;
    for (int bits = 1; bits < 32; bits *= 2) mask |= mask >> bits;
    while ((number = next_number(numbers) & mask) > last) continue;
    return number;
}

/* 0 ... n - 1 in an order that seed, step and stream decide; n is less than 2^32. */
static void permute(long *order, long n, long long seed, int step, long long stream) {
    Numbers numbers = {seed, stream, step, 0, {0}};
    for (long i = 0; i < n; ++i) order[i] = i;
    for (long i = n - 1; i > 0; --i) {
        const long j = number_up_to(&numbers, (uint32_t)i), kept = order[i];
        order[i] = order[j], order[j] = kept;
    }
}
