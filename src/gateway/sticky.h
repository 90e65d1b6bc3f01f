/*
 * gateway/sticky - who belongs together: a number for a conversation.
 *
 * While a model's new requests are shared between versions, the requests of
 * one conversation go to one version, and as a version's share grows nobody
 * goes back and forth: the number is a point on a line, and a growing share
 * only takes more of that line (route_version).
 */
#pragma once
#include "json/scan.h"

/* What a conversation is known by, the first that is there: a header's value, the
 * `user` member, the first element of `messages`, or `prompt`. */
struct sticky_source {
    struct span header;   /* value of the model's sticky header; n 0: none */
    struct span user;     /* JSON value as it stands; n 0: none */
    struct span messages; /* JSON value as it stands; n 0: none */
    struct span prompt;   /* JSON value as it stands; n 0: none */
};

/* A 64-bit number that is evenly spread; 0 when there is nothing to go by. */
uint64_t sticky_number(const struct sticky_source *s);

/* The first element of a JSON array (valid JSON, as it stands); n 0 if it is empty
 * or no array. */
struct span sticky_first(struct span array);
