/*
 * gateway - the process that carries the traffic.
 *
 *   segue gateway --control-fd N --counters-fd N --workers N --listen ADDR... --listen-fds N,N,...
 *
 * started by the manager (app/gateway_link).  The main thread talks with the
 * manager over the control socket; the workers talk with everybody else.
 */
#pragma once
#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

struct gateway;
struct table;

/* `segue gateway ...`: returns the exit status. */
int gateway_main(int argc, char **argv);

/* --- what the workers need of the main thread ------------------------------ */

enum gateway_wish {
    GATEWAY_RUN,
    GATEWAY_DRAIN, /* finish what is there, take nothing new */
    GATEWAY_END    /* now */
};

/* The newest certificate with a reference for the caller; NULL: there is none. */
SSL_CTX *gateway_tls(struct gateway *g);

/* The newest table with a reference for the caller; NULL before the first. */
struct table *gateway_table(struct gateway *g);
enum gateway_wish gateway_wish(struct gateway *g);

/* Worker `index` has adopted the table of this epoch: what it dispatches from
 * now on goes by it. */
void gateway_adopted(struct gateway *g, unsigned index, uint64_t epoch);

/* The access log's file and format, if they are others than what *seen says: a descriptor
 * for the caller, -1: no log. False: nothing is new. */
bool gateway_access(struct gateway *g, unsigned *seen, int *fd, bool *text);

/* A draining worker has no client left; its thread ends. */
void gateway_worker_done(struct gateway *g);

/*
 * Connections of one client address (IPv6: of one /64), over all workers.  The count
 * is kept by a hash of the address: two addresses may rarely share one.  `place` is
 * for the way back.
 */
struct sockaddr;
unsigned gateway_peer_enter(struct gateway *g, const struct sockaddr *peer, unsigned *place);
void gateway_peer_leave(struct gateway *g, unsigned place);
