/*
 * decoder - several streams in one batch.
 *
 * One libllama context with a fixed number of slots; a slot is a sequence with
 * its cells (the keys and values of the tokens it has computed).  decoder_step()
 * is one call of llama_decode(): a token for each stream that talks, and beside
 * them a piece of the prompts that are still being read, cut so that nobody who
 * talks waits long.  All on the decode thread.
 */
#pragma once
#include "engine/metrics.h"
#include "engine/stream.h"

struct decoder;

struct decoder_options {
    int parallel; /* slots */
    int context;  /* tokens of one stream, prompt and answer */
    int batch;    /* tokens of one step at most */
    int threads;
    bool unified;                 /* one pool of cells for all slots instead of one each */
    int stall_ms;                 /* how long talking streams may wait for a piece of prompts */
    struct ggml_threadpool *pool; /* borrowed; NULL: ggml's own */
};

/* `model` is kept (counted). NULL with a sentence, e.g. not enough memory. */
struct decoder *decoder_new(struct model *model, const struct decoder_options *o,
                            struct metrics *metrics, struct err *err);

/* All streams must have ended. */
void decoder_free(struct decoder *d);

/* Tokens that one stream may have. */
int decoder_context(const struct decoder *d);

/* Borrowed. */
struct model *decoder_model(const struct decoder *d);

/* Computes one token and forgets it, so that the first request finds everything warm. */
int decoder_warm(struct decoder *d, struct err *err) MUST_CHECK;

/* Takes over the caller's reference; the stream waits for a slot. */
void decoder_add(struct decoder *d, struct stream *s);

bool decoder_idle(const struct decoder *d);

/*
 * One step. For each stream that said something or ended `tell` is called; its
 * `fresh` is to be taken. An ended stream is given up (its reference goes to `tell`).
 */
void decoder_step(struct decoder *d, void (*tell)(struct stream *s, void *arg), void *arg);
