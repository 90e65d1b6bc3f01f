/*
 * gateway/table - one immutable state of the routes: which names exist, which
 * versions get new requests, which replicas answer for them, which limits hold.
 *
 * The main thread builds a table from the manager's message and publishes it;
 * each worker takes a reference when it adopts it, each exchange holds its
 * worker's view of it.  It is freed when the last has let go.  Nothing in a
 * table is ever written after table_parse() has returned.
 */
#pragma once
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <netinet/in.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

enum { TABLE_NAME_MAX = 130 }; /* "MODEL@VERSION" */

struct replica_route {
    unsigned slot; /* row of the counters, pool of each worker */
    bool ready;
    char *address;       /* owned, as all pointers here unless it says borrowed; for people */
    uint64_t address_id; /* hash of address: tells a slot's new engine from its old one */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } sock;
    socklen_t sock_len;
    char *name;           /* "hy-mt@v1#0", "" if it has none; for people */
    char *prefix;         /* path prefix of the engine, "" if none */
    struct span serve_as; /* JSON string with its quotes: what this engine calls the model */
};

struct version_route {
    char *name;      /* "v1" */
    char *tag;       /* "hy-mt@v1" */
    unsigned weight; /* share of new requests; 0: pinned ones only */
    struct replica_route *replicas;
    size_t nreplicas;
};

struct model_route {
    atomic_uint refs; /* tables that have it: a new table shares what did not change */
    char *name;
    char *signature; /* all names that lead to it, one a line */
    unsigned index;  /* in table->models, the same in all tables that share it */
    unsigned nslots; /* highest slot of any replica + 1 */
    bool split;      /* its requests are shared between versions */
    bool expected;   /* a replica may become ready soon: hold */
    int64_t created; /* seconds since 1970 */
    uint64_t hold_ns;
    unsigned hold_max; /* for all workers together */
    unsigned total_weight;
    struct version_route *versions;
    size_t nversions;
};

struct limits {
    size_t head_bytes, body_bytes;
    unsigned connections;
    size_t client_buffer_bytes;
    unsigned exchanges;          /* of all workers; more are answered 503 */
    unsigned client_connections; /* of one client address, of all workers */
    size_t body_memory_bytes;    /* bodies that are arriving, of all workers */
};

struct timeouts { /* nanoseconds */
    uint64_t head, body, idle, send, connect, first_byte, between_bytes, upstream_idle;
};

struct keyring;
struct names;

struct table {
    atomic_uint refs;
    uint64_t epoch;
    unsigned nslots;     /* highest slot of any replica + 1 */
    bool split;          /* some model shares its requests between versions */
    char *sticky_header; /* "" if none: conversations are known by `user` and the like */
    char **cors;         /* NULL-terminated: origins; NULL: CORS is off */
    struct limits limits;
    struct timeouts timeouts;
    struct keyring *keyring;     /* counted; NULL: no request is asked for a key */
    struct model_route **models; /* owned array of counted */
    size_t nmodels;
    struct names *names; /* counted; shared by tables with the same names */
};

/* What a name in a request means. */
struct table_match {
    const struct model_route *model;     /* borrowed from the table */
    const struct version_route *version; /* set if the client named MODEL@VERSION */
};

/*
 * Builds a table from a `table` message; one reference.  NULL with a sentence.
 * A message with `base` says only what changed since the table of that epoch,
 * which must be `base`; all other models are shared with it, so that a switch
 * costs the same among a thousand models as alone.  base is borrowed, may be NULL.
 */
struct table *table_parse(struct span message, const struct table *base, struct err *err);

struct table *table_ref(struct table *t);
void table_unref(struct table *t);

/* Finds a public name, an alias, an engine's own name for the model, MODEL@VERSION, or
 * MODEL@champion, @stable, @challenger, @canary. */
bool table_find(const struct table *t, struct span name, struct table_match *match);

/* The answer to GET /v1/models, appended to out. */
void table_models_json(const struct table *t, struct buf *out);

/* "hy-mt, other": the public names, the first 20 of them. */
void table_names_text(const struct table *t, struct buf *out);
