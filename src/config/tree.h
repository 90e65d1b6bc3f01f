/*
 * tree - a YAML text as a tree that remembers where everything stands.
 *
 * One document of maps, lists and scalars.  Anchors, aliases, tags, a second
 * document and a key that stands twice are reported and left out: a
 * configuration is read by people, and each of them hides what is meant.
 */
#pragma once
#include "base/span.h"
#include "config/diag.h"

enum node_kind {
    NODE_SCALAR,
    NODE_MAP,
    NODE_LIST,
    NODE_BROKEN /* was reported already; readers pass over it */
};

struct node {
    enum node_kind kind;
    unsigned line, column; /* from 1; columns count characters */
    bool plain;            /* a scalar without quotes */
    char *text;            /* owned, NUL-terminated; scalars only */
    struct node **keys;    /* owned, n scalars; maps only */
    struct node **items;   /* owned, n; values of a map, items of a list */
    size_t n;
};

/* Deeper nesting than any configuration has is refused. */
enum { TREE_DEPTH_MAX = 12, TREE_BYTES_MAX = 1 << 20 };

/* NULL when there is no tree to look at (the reason is in `d`). */
struct node *tree_read(struct span text, struct diags *d);
void tree_free(struct node *node);

/* A scalar of one's own; freed with tree_free(). */
struct node *tree_scalar(const char *text);

/* The value of a key, or NULL. `map` may be NULL or of another kind. */
const struct node *tree_get(const struct node *map, const char *key);
const struct node *tree_get_key(const struct node *map, const char *key);

/* Whether there is nothing where a value should be: `key:`, `key: ~`, `key: null`. */
bool node_is_null(const struct node *node);

/* "a list", "a map", "text". */
const char *node_kind_name(const struct node *node);
