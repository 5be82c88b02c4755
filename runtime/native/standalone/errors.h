/* Errors of a standalone program: a message, what was expected and found, what helps; exit code 2. */
#pragma once
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRONG 2 /* the exit code */
#define END (char *)0 /* of the arguments of fail */

/* Ends the program. Of the pairs of a label and a text after the message, those without a text are left out; the last
   label is END. Lines have no control characters, whatever the names of files and arrays are. */
static _Noreturn void fail(const char *message, ...) {
    char text[4096];
    va_list parts;
    fflush(stdout);
    snprintf(text, sizeof text, "error: %s", message);
    va_start(parts, message);
    for (const char *label = ""; label; label = va_arg(parts, const char *)) {
        if (*label) {
            const char *found = va_arg(parts, const char *);
            if (!found) continue;
            snprintf(text, sizeof text, "  %s: %s", label, found);
        }
        for (char *c = text; *c; ++c)
            if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
        fprintf(stderr, "%s\n", text);
    }
    va_end(parts);
    exit(WRONG);
}

/* A text as printf makes it, for messages; it is never freed. */
__attribute__((format(printf, 1, 2))) static const char *text_of(const char *format, ...) {
    va_list parts;
    va_start(parts, format);
    const int size = vsnprintf(0, 0, format, parts);
    va_end(parts);
    char *text = malloc((size_t)size + 1);
    if (!text) fail("out of memory", END);
    va_start(parts, format);
    vsnprintf(text, (size_t)size + 1, format, parts);
    va_end(parts);
    return text;
}

/* Zeroed bytes, aligned to 64. */
static void *zeroed(size_t bytes) {
    void *place = 0;
    if (posix_memalign(&place, 64, bytes ? bytes : 64))
        fail("not enough memory", "expected", text_of("%.2f GiB free", (double)bytes / (1 << 30)), END);
    return memset(place, 0, bytes);
}
