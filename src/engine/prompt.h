/*
 * prompt - from text to token ids.
 *
 * What a user wrote is always tokenized as plain text: "<｜hy_Assistant｜>" in a
 * message is thirteen characters and never the control token.  The frame around
 * it is put together from ids.
 */
#pragma once
#include "engine/model.h"

struct prompt {
    llama_token *tokens; /* owned */
    size_t n, room;
};

enum message_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

struct message {
    enum message_role role;
    struct span text; /* borrowed */
};

void prompt_fini(struct prompt *p);

void prompt_add_token(struct prompt *p, llama_token t);

/* Appends text. `special`: control tokens in it are understood (only for text
 * that an operator's template or a raw completion wrote). `begin`: BOS first if
 * the vocabulary asks for one. */
int prompt_add_text(struct prompt *p, const struct model *m, struct span text, bool special,
                    bool begin, struct err *err) MUST_CHECK;

/*
 * Appends a conversation in the model's frame. `answer`: opens the assistant's
 * turn. `open_end`: the last message is an assistant's and stays open, to be
 * continued.
 */
int prompt_add_chat(struct prompt *p, const struct model *m, const struct message *messages,
                    size_t n, bool answer, bool open_end, struct err *err) MUST_CHECK;
