/* Random numbers as a function of (seed, step, stream, place): the same bits as runtime/random.py. */
#pragma once
#include "functions.h"
#include "step.h"
#include "ziggurat.h"

#define BLOCK 8 /* numbers of one block of Philox */

/* Four words: Philox4x64-10 (Salmon et al., 2011) with key (seed, stream) and counter (block, row, step, 0). */
INLINE void philox(
    long long seed, int step, unsigned long long stream, unsigned long long block, unsigned long long row, uint64_t *words) {
    uint64_t key0 = (uint64_t)seed, key1 = stream, x0 = block, x1 = row, x2 = (uint64_t)(long long)step, x3 = 0;
    UNROLL(10) for (int round = 0; round < 10; ++round) {
        const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * x0;
        const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157u * x2;
        x0 = (uint64_t)(b >> 64) ^ x1 ^ key0, x1 = (uint64_t)b;
        x2 = (uint64_t)(a >> 64) ^ x3 ^ key1, x3 = (uint64_t)a;
        key0 += 0x9E3779B97F4A7C15u, key1 += 0xBB67AE8584CAA73Bu;
    }
    words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
}

/* A number of a block, from 0 to 7: the low half of a word first. */
INLINE uint32_t half_of(const uint64_t *words, int place) { return (uint32_t)(words[place / 2] >> place % 2 * 32); }

/* Uniform in [0, 1): the top 24 of 32 bits. */
INLINE float uniform_of(uint32_t bits) { return (float)(int)(bits >> 8) * 0x1p-24f; }

/* The n-th number of a stream; blocks count from 1. */
UNUSED static float philox_uniform(long long seed, int step, unsigned long long stream, long long n) {
    uint64_t words[4];
    philox(seed, step, stream, (unsigned long long)(n / BLOCK + 1), 0, words);
    return uniform_of(half_of(words, (int)(n % BLOCK)));
}

/* Numbers first ... first + count - 1 of a stream; each thread computes its share of the blocks. */
UNUSED static void fill_uniform(
    const Step *s, float *out, long long seed, int step, unsigned long long stream, long long first, long count) {
    enum { AT_ONCE = 16 }; /* blocks */
    const long long start = first / BLOCK;
    const long blocks = (long)((first + count + BLOCK - 1) / BLOCK - start);
    long from, to;
    share(blocks, AT_ONCE, s->part, s->parts, &from, &to);
    for (long block = from; block < to; block += AT_ONCE) {
        uint64_t words[AT_ONCE * BLOCK / 2];
        float numbers[AT_ONCE * BLOCK];
        for (int i = 0; i < AT_ONCE; ++i)
            philox(seed, step, stream, (unsigned long long)(start + block + i + 1), 0, words + i * BLOCK / 2);
        PRAGMA(omp simd)
        for (int i = 0; i < AT_ONCE * BLOCK / 2; ++i) {
            const uint64_t word = words[i];
            numbers[2 * i] = uniform_of((uint32_t)word);
            numbers[2 * i + 1] = uniform_of((uint32_t)(word >> 32));
        }
        const long place = (long)((start + block) * BLOCK - first); /* of the first of them in `out` */
        const long low = place < 0 ? -place : 0, rest = count - place;
        const long high = rest < AT_ONCE * BLOCK ? rest : AT_ONCE * BLOCK;
        if (high > low) memcpy(out + place + low, numbers + low, (size_t)(high - low) * sizeof(float));
    }
}

/* Normal numbers by the ziggurat, as NumPy computes them in f32: most take one number of 32 bits, some take more --- */

enum { BLOCKS_AT_ONCE = 16, NORMALS_AT_ONCE = 16 };

/* The numbers of a stream of Philox one after another, from the first block of a row. */
typedef struct {
    long long seed;
    int step;
    unsigned long long stream, row, block;
    int next, end; /* in `bits` */
    uint32_t bits[NORMALS_AT_ONCE + BLOCKS_AT_ONCE * BLOCK];
} RandomSource;

/* Adds blocks to the numbers that are left, fewer than NORMALS_AT_ONCE, enough for `wanted` if they fit. */
UNUSED static void refill(RandomSource *source, long wanted) {
    const int left = source->end - source->next;
    const long blocks = (wanted - left + BLOCK - 1) / BLOCK;
    const int count = blocks < 1 ? 1 : blocks < BLOCKS_AT_ONCE ? (int)blocks : BLOCKS_AT_ONCE;
    UNROLL(1) for (int i = 0; i < left; ++i) source->bits[i] = source->bits[source->next + i];
    for (int i = 0; i < count; ++i) {
        uint64_t words[4];
        philox(source->seed, source->step, source->stream, ++source->block, source->row, words);
        UNROLL(8) for (int j = 0; j < BLOCK; ++j) source->bits[left + i * BLOCK + j] = half_of(words, j);
    }
    source->next = 0;
    source->end = left + count * BLOCK;
}
INLINE uint32_t next_bits(RandomSource *source) {
    if (source->next == source->end) refill(source, 1);
    return source->bits[source->next++];
}
INLINE float next_uniform(RandomSource *source) { return uniform_of(next_bits(source)); }

/* The layer is in 8 bits, the sign in one, the place in the layer in the other 23. */
INLINE float normal_of(uint32_t bits) {
    const float size = (float)(int)(bits >> 9) * ZIGGURAT_WIDTH[bits & 255];
    return float_of(bits_of_float(size) | (bits << 23 & 0x80000000u));
}
INLINE bool is_inside(uint32_t bits) { return bits >> 9 < ZIGGURAT_INSIDE[bits & 255]; }

/* A number beyond the lowest layer (Marsaglia, 1964). */
UNUSED static float normal_of_tail(RandomSource *source, uint32_t bits) {
    for (;;) {
        const float beyond = -INVERSE_TAIL * (float)log1p_f64(-next_uniform(source));
        const float height = -(float)log1p_f64(-next_uniform(source));
        const float size = TAIL + beyond;
        if (height + height > beyond * beyond) return bits >> 17 & 1 ? -size : size;
    }
}
UNUSED static float next_normal(RandomSource *source) {
    for (;;) {
        const uint32_t bits = next_bits(source), layer = bits & 255;
        const float x = normal_of(bits);
        if (is_inside(bits)) return x;
        if (layer == 0) return normal_of_tail(source, bits);
        const float low = ZIGGURAT_HEIGHT[layer], high = ZIGGURAT_HEIGHT[layer - 1];
        volatile float part = (high - low) * next_uniform(source); /* rounded before it is added */
        if (part + low < exp_f64(-0.5 * x * x)) return x;
    }
}
UNUSED static void next_normals(RandomSource *source, float *out, long count) {
    long i = 0;
    while (count - i >= NORMALS_AT_ONCE) {
        if (source->end - source->next < NORMALS_AT_ONCE) refill(source, count - i);
        const uint32_t *bits = source->bits + source->next;
        int inside[NORMALS_AT_ONCE], all_inside = 1;
        PRAGMA(omp simd reduction(& : all_inside))
        for (int j = 0; j < NORMALS_AT_ONCE; ++j) {
            out[i + j] = normal_of(bits[j]);
            inside[j] = is_inside(bits[j]);
            all_inside &= inside[j];
        }
        int done = NORMALS_AT_ONCE;
        if (!all_inside)
            for (done = 0; inside[done]; ++done) {}
        source->next += done;
        i += done;
        if (!all_inside) out[i++] = next_normal(source);
    }
    for (; i < count; ++i) out[i] = next_normal(source);
}

/* Rows with the counters row, row + 1, ...; the numbers of a row depend on all numbers before them, so threads divide
   rows. A limit above 0 is the size beyond which numbers are drawn again: after all others, in order, repeatedly. */
UNUSED static void fill_rows_with_normals(
    const Step *s, float *out, long long seed, int step, unsigned long long stream, long long row, long rows,
    long count, float limit) {
    long from, to;
    share(rows, 1, s->part, s->parts, &from, &to);
    for (long i = from; i < to; ++i) {
        RandomSource source = {.seed = seed, .step = step, .stream = stream, .row = (unsigned long long)(row + i)};
        float *numbers = out + i * count;
        next_normals(&source, numbers, count);
        for (bool beyond = limit > 0; beyond;) {
            beyond = false;
            for (long j = 0; j < count; ++j) {
                if (__builtin_fabsf(numbers[j]) <= limit) continue;
                numbers[j] = next_normal(&source);
                beyond |= __builtin_fabsf(numbers[j]) > limit;
            }
        }
    }
}
UNUSED static void fill_normal(
    const Step *s, float *out, long long seed, int step, unsigned long long stream, long long row, long rows,
    long count) {
    fill_rows_with_normals(s, out, seed, step, stream, row, rows, count, 0.0f);
}
UNUSED static void fill_truncated_normal(
    const Step *s, float *out, long long seed, int step, unsigned long long stream, long long row, long rows,
    long count) {
    fill_rows_with_normals(s, out, seed, step, stream, row, rows, count, 2.0f);
}
