/*
 * gateway/route - which version, which replica: the choices, without IO.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct model_route;
struct version_route;
struct replica_route;
struct worker;

/*
 * A version by weight; `dice` is a point on a line of 2^64, random or the number of
 * a conversation.  The same point goes to the same version until that version's
 * share shrinks.  NULL if no version has a share.
 */
const struct version_route *route_version(const struct model_route *m, uint64_t dice);

/*
 * The replica to ask: ready, not in `tried` (bit i: replica i), not paused after
 * a failure; of two random ones the one with fewer exchanges in flight.  NULL if
 * there is none.
 */
const struct replica_route *route_replica(struct worker *w, const struct version_route *v,
                                          uint64_t tried);

/* Whether a replica beside r could be chosen now. */
bool route_other_usable(struct worker *w, const struct version_route *v,
                        const struct replica_route *r);

bool route_any_ready(const struct version_route *v);
