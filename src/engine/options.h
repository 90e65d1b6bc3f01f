/*
 * options - the command line of segue-engine.
 */
#pragma once
#include <stdbool.h>

#include "base/err.h"

enum { LISTEN_MAX = 8, PARALLEL_MAX = 256 };

struct options {
    const char *model; /* all strings borrowed from argv */
    const char *name;  /* served model name */
    const char *listen[LISTEN_MAX];
    int nlisten;
    const char *backends; /* folder of libggml-*.so; NULL: beside libllama */
    int parallel;
    int context; /* 0: what the model was trained with, at most 4096 */
    int threads; /* 0: one for each physical core */
    int queue;   /* streams that may wait for a slot */
    int batch;
    int stall_ms;
    int poll;
    int gpu_layers;
    int shutdown_s;
    bool unified;
    bool mmap;
    bool verbose;
};

enum options_result { OPTIONS_RUN, OPTIONS_DONE, OPTIONS_WRONG };

/* Reads argv. OPTIONS_DONE: --help or --version was printed; OPTIONS_WRONG: err says what. */
enum options_result options_read(struct options *o, int argc, char **argv, struct err *err);
