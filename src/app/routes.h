/*
 * app/routes - from what the manager knows to the table that the gateway gets.
 *
 * A pure function: the message `table` of docs/architecture.md, nothing else.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"

/* All pointers are borrowed for the call. */
struct route_replica {
    int slot;
    const char *name; /* for the access log; may be NULL */
    const char *address, *prefix, *serve_as;
    bool ready;
};

struct route_version {
    const char *name;
    unsigned weight; /* share of new requests; 0: pinned ones only */
    const struct route_replica *replicas;
    size_t nreplicas;
};

struct route_model {
    const struct config_model *config;
    bool expected;   /* a replica is ready or may be soon: hold requests, do not refuse them */
    int64_t created; /* seconds since 1970, for GET /v1/models */
    const struct route_version *versions;
    size_t nversions;
};

/* What one model's part of the table says, as text: the same text, the same part. */
void routes_text(const struct route_model *m, struct buf *out);

/* One model's part of the table; new reference. */
json_t *routes_model(const struct route_model *m);

/* The message; `models` is an array of such parts, its reference is stolen. New reference. */
json_t *routes_table(const struct config *config, json_t *models, uint64_t epoch);
