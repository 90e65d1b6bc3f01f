/*
 * app/apikeys - the API keys as the manager has them.
 *
 *   `segue key add` ─▶ store ─▶ list ─▶ route table ─▶ acknowledgement ─▶ answer
 *
 * The text of a key exists in one answer and nowhere else; the store, this list
 * and the gateway have its SHA-256.  Both changes are answered when the gateway
 * acts by them: a new key works, a revoked one does not.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

struct admin_call;
struct manager;

/* Reads the keys from the store. */
int apikeys_load(struct manager *m, struct err *err) MUST_CHECK;
void apikeys_free(struct manager *m);

/* The table's member `keys`; new reference. */
json_t *apikeys_table(const struct manager *m);

/* All workers go by the table of this epoch: answers who waits for it. */
void apikeys_acked(struct manager *m, uint64_t epoch);

/* The manager stops: nobody waits any longer. */
void apikeys_abandon(struct manager *m);

/* --- verbs --- */
json_t *apikeys_list(void *arg);
void apikeys_add(struct admin_call *call, const char *name, const json_t *models,
                 int64_t concurrency, int64_t rate, void *arg);
void apikeys_revoke(struct admin_call *call, const char *name, void *arg);
