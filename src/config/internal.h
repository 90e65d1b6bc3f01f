/*
 * internal - what the files of src/config share: the reader.
 */
#pragma once
#include "config/config.h"
#include "config/keys.h"
#include "config/tree.h"

struct reader {
    struct diags *diags; /* borrowed */
    const char *folder;  /* borrowed; for relative paths */
};

/*
 * Fills the members of `base` that the scope's rows name, from a map or, where
 * a key is missing (or map is NULL), from its default.  Faults go to the diags.
 */
void read_scope(struct reader *r, enum scope scope, const struct node *map, void *base);

/* What can be seen only when everything is read: keys that need each other. */
void check_config(struct reader *r, const struct node *root, struct config *c);

/* Frees, or copies, all members that the scope's rows name. */
void scope_fini(enum scope scope, void *base);
void scope_copy(enum scope scope, void *to, const void *from);

/* "HOST:PORT" as the gateway wants it; false with what is wrong. */
bool listen_parse(const char *text, char **address, const char **why);

/* The path, from the folder if it is relative; the caller frees it. */
char *path_absolute(const char *folder, const char *path);

/* "a, b and c" of the scope's keys that belong to an engine (-1: any). */
void keys_list(struct buf *out, enum scope scope, int engine);
