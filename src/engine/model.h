/*
 * model - weights and vocabulary, loaded; shared and never changed afterwards.
 *
 * Counted: every request that was tokenized with a model keeps it, so that a
 * model may be exchanged while its streams finish.
 */
#pragma once
#include <llama.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

/* HY-MT's chat frame: the control tokens around a conversation, by id.
 *
 *   bos [system system_end] user TEXT assistant ANSWER turn_end user TEXT assistant
 */
struct frame {
    llama_token bos, user, assistant, system_end, turn_end;
};

struct model {
    int refs;                        /* atomic */
    struct llama_model *llama;       /* owned */
    const struct llama_vocab *vocab; /* borrowed from llama */
    char *path;                      /* owned */
    char architecture[64];
    uint64_t file_bytes;
    int32_t ntokens;       /* size of the vocabulary */
    int32_t trained;       /* context length that it was trained with */
    int32_t longest_piece; /* bytes of the longest token: bounds a prompt before it is tokenized */
    int64_t loaded;        /* seconds since 1970 */
    bool has_frame;        /* the vocabulary has HY-MT's control tokens */
    struct frame frame;
    const char *template; /* borrowed from llama; NULL when the file has none */
};

struct model_options {
    int gpu_layers; /* -1: all */
    bool mmap;
    bool (*go_on)(float progress, void *arg); /* false ends the load; any thread */
    void *arg;
};

/* Checks the file, then loads it. NULL with a sentence naming file and reason. */
struct model *model_load(const char *path, const struct model_options *o, struct err *err);

struct model *model_ref(struct model *m);
void model_unref(struct model *m);

/* The text of a token, at most `room` bytes, without a NUL; control tokens are empty
 * unless `special`. Returns its length. */
size_t model_piece(const struct model *m, llama_token t, bool special, char *out, size_t room);

/* The id of a control token by its text, or -1. */
llama_token model_control_token(const struct model *m, const char *text);
