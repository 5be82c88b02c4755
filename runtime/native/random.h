/* Random numbers as a function of (seed, step, stream, place): the same bits as runtime/random.py. */
#pragma once
#include "step.h"

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
