/*
 * messages - the `messages` of a chat request, from JSON to texts.
 */
#pragma once
#include <jansson.h>

#include "engine/prompt.h"

struct messages {
    struct message *m; /* owned; texts are borrowed from the JSON or from `joined` */
    size_t n;
    struct buf *joined; /* owned; one for each message that came in several parts */
};

/* Reads and checks the array; `field` gets the name of what is wrong. */
int messages_read(struct messages *out, json_t *array, char *field, size_t room,
                  struct err *err) MUST_CHECK;
void messages_fini(struct messages *m);
