/*
 * app/routes - from what the manager knows to the table that the gateway gets.
 *
 * A pure function: the message `table` of docs/architecture.md, nothing else.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

/* All pointers are borrowed for the call. */
struct route_replica {
    int slot;
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

/* New reference. */
json_t *routes_table(const struct config *config, const struct route_model *models, size_t nmodels,
                     uint64_t epoch);

/* The same table in all but its epoch? */
bool routes_same(json_t *a, json_t *b);
