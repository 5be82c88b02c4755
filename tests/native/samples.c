/* Runs graphs for machines.py: reads cases from stdin, writes the arenas after them to stdout. SAMPLES is the file with
   the graphs and their table.

   A case: number of the graph, examples, threads, bytes of the arena and of the workspace of a thread; then the arena.
   Workspaces are full of NaN. */
#include "pool.c"
#include <stdio.h>
#include <stdlib.h>
#include SAMPLES

typedef struct { int64_t graph, batch, parts, arena, workspace; } Case;

static void fail(const char *what, const Case *now) {
    fprintf(stderr, "graph %ld: %s\n", (long)now->graph, what);
    exit(3);
}

int main(void) {
    for (Case now; fread(&now, sizeof now, 1, stdin) == 1;) {
        const size_t arena_bytes = (now.arena + 127) / 64 * 64, all_workspaces = now.workspace * now.parts + 64;
        char *arena = NULL, *workspaces = NULL;
        if (posix_memalign((void **)&arena, 64, arena_bytes) ||
            posix_memalign((void **)&workspaces, 64, (all_workspaces + 63) / 64 * 64))
            fail("no memory", &now);
        memset(arena, 0xff, arena_bytes);
        memset(workspaces, 0xff, all_workspaces);
        if (fread(arena, 1, now.arena, stdin) != (size_t)now.arena) fail("too few bytes", &now);
        if (nnc_run(graphs[now.graph], arena, now.batch, workspaces, now.workspace, (int)now.parts))
            fail("no threads", &now);
        for (int i = 0; i < 64; ++i) {
            if ((unsigned char)arena[arena_bytes - 1 - i] != 0xff) fail("written after the arena", &now);
            if ((unsigned char)workspaces[all_workspaces - 1 - i] != 0xff) fail("written after workspaces", &now);
        }
        fwrite(arena, 1, now.arena, stdout);
        free(arena), free(workspaces);
    }
    return 0;
}
