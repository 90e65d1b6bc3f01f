/*
 * backend - libllama as a guest in our process: its compute back-ends, its
 * threads, and what it says on its way down.
 */
#pragma once
#include <llama.h>
#include <stdbool.h>

#include "base/err.h"

/*
 * Loads the compute back-ends from `folder`, or (NULL) from the folder where
 * libllama itself was found.  Once, before anything else of libllama.
 * `verbose` passes its log lines on to standard error.
 */
int backend_start(const char *folder, bool verbose, struct err *err) MUST_CHECK;
void backend_stop(void);

/* Forgets what libllama has complained about so far (one loader at a time). */
void backend_words_clear(void);

enum { BACKEND_WORDS_MAX = 400 };

/* The last error lines since then, joined by "; "; empty if there were none. */
void backend_words(char out[BACKEND_WORDS_MAX]);

/*
 * A pool of n threads (the caller of llama_decode() is one of them) that lives
 * between decodes; NULL if n is 1 or the back-end has none, then ggml helps
 * itself. poll: 0 sleeps at once between two graphs, 100 spins longest.
 */
struct ggml_threadpool *backend_pool_new(int n, unsigned poll);
void backend_pool_free(struct ggml_threadpool *pool);
