/*
 * gateway/internal - the objects of one worker, for the files of this folder.
 *
 *   worker ──owns──▶ clients ──own──▶ exchange ──owns──▶ upstream
 *      └──owns──▶ pools (one for each slot) ──own──▶ idle upstreams
 *
 * All of them belong to one worker thread; nothing here is shared between
 * workers but the table (immutable, counted) and the counters (one writer).
 */
#pragma once
#include <openssl/types.h>
#include <pthread.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "gateway/access.h"
#include "gateway/counters.h"
#include "gateway/error.h"
#include "gateway/loop.h"
#include "gateway/table.h"
#include "http/chunk.h"
#include "http/parse.h"
#include "json/scan.h"

enum {
    SCRATCH_BYTES = 65536, /* one read */
    FLAT_BYTES = 32768,    /* one small write, put together from its pieces */
    REQUEST_ID_MAX = 128,
    ENGINE_HEAD_MAX = 65536, /* bytes of an answer's head */
    INTERIM_MAX = 16,        /* 1xx answers before the real one */
    READS_A_ROUND = 16,      /* of one connection; then others have their turn */
    BODY_SMALL = 65536       /* a body up to this is not refused for memory's sake */
};

struct worker;
struct client;
struct exchange;
struct api_key;

/* --- view: a worker's hold on a table -------------------------------------- */

struct view {
    struct table *table; /* counted */
    unsigned refs;       /* the worker, and each exchange that was dispatched by it */
    unsigned *held;      /* owned; waiting exchanges of each model of the table */
};

struct view *view_new(struct table *t); /* takes the reference */
void view_unref(struct view *v);

/* --- upstream: a connection to an engine ----------------------------------- */

// clang-format off
#define UPSTREAM_STATES(X)                                                 \
    X(CONNECTING, "connecting", "connect(2) has begun; an exchange waits") \
    X(BUSY,       "busy",       "an exchange has it")                      \
    X(IDLE,       "idle",       "in its pool's list, kept alive")          \
    X(CLOSED,     "closed",     "descriptor closed, memory not yet")
// clang-format on

enum upstream_state {
#define X(id, name, note) UPSTREAM_##id,
    UPSTREAM_STATES(X)
#undef X
};

struct pool {
    unsigned slot;
    uint64_t address_id;     /* of the engine that has the slot now */
    uint64_t since_ns;       /* this worker's first look at that engine: slow start */
    struct list idle;        /* newest first */
    unsigned nidle;          /* of them */
    unsigned failures;       /* not reached, or died: in a row */
    unsigned bad;            /* answers with status 500 and above: in a row */
    uint64_t avoid_until_ns; /* after failures: not chosen before, ... */
    uint64_t avoid_epoch;    /* ... unless there is a newer table than this */
    struct exchange *trial;  /* borrowed; after failures one exchange goes first */
    struct replica_row *row; /* borrowed from the counters */
};

struct upstream {
    struct watch watch;
    struct grave grave;
    struct timer timer;
    enum upstream_state state;
    struct worker *worker;     /* borrowed */
    struct pool *pool;         /* borrowed */
    struct exchange *exchange; /* borrowed; set while CONNECTING and BUSY */
    struct list link;          /* in pool->idle while IDLE */
    uint64_t address_id;
    struct buf in;  /* the beginning of an answer's head */
    struct buf out; /* request bytes that the engine has not taken */
    bool reused;    /* it has carried an exchange before */
    bool paused;    /* not read because the client does not read */
};

/* Shared by both sides: sends pieces now, keeps the rest in `out`. -1 with errno. */
int socket_send(struct worker *w, int fd, struct buf *out, struct iovec *pieces, int n) MUST_CHECK;
/* Sends what is in `out`. 1: all of it, 0: some is left, -1: errno. */
int socket_flush(int fd, struct buf *out) MUST_CHECK;

struct pool *pool_of(struct worker *w, const struct replica_route *r);

/* An idle connection or a new one, for x. NULL with errno when none can be made. */
struct upstream *upstream_get(struct worker *w, const struct replica_route *r, struct pool *p,
                              struct exchange *x);
/* Back into the pool. */
void upstream_put(struct upstream *u);
void upstream_close(struct upstream *u);
/* Sends the pieces now, keeps what the socket does not take. -1 with errno. */
int upstream_send(struct upstream *u, struct iovec *pieces, int n) MUST_CHECK;
void upstream_resume(struct upstream *u);
void pool_close_idle(struct pool *p);

/* --- exchange: one request and its answer ---------------------------------- */

// clang-format off
#define EXCHANGE_STATES(X)                                                         \
    X(NEW,      "new",      "the request is whole; nothing was tried")             \
    X(HELD,     "held",     "in worker->held; no replica is ready")                \
    X(CONNECTING, "connecting", "has an upstream that is connecting")              \
    X(WAITING,  "waiting",  "sent, or being sent; no head of the answer yet")      \
    X(RELAYING, "relaying", "the answer's head was relayed; its body follows")     \
    X(ENDED,    "ended",    "booked; nothing refers to it any more")
// clang-format on

enum exchange_state {
#define X(id, name, note) EXCHANGE_##id,
    EXCHANGE_STATES(X)
#undef X
};

/* What an exchange came to, at one replica: which counter. */
enum outcome {
    OUTCOME_FINISHED,
    OUTCOME_FAILED,
    OUTCOME_TRUNCATED,
    OUTCOME_CANCELLED,
    OUTCOME_RETRIED
};

struct exchange {
    struct grave grave;
    enum exchange_state state;
    struct worker *worker; /* borrowed */
    struct client *client; /* borrowed; outlives us */
    struct list link;      /* in worker->held while HELD */
    struct timer timer;    /* hold deadline while HELD */

    struct view *view;                   /* counted; set by the last dispatch */
    const struct version_route *version; /* borrowed from view */
    const struct replica_route *replica; /* borrowed from view */
    struct pool *pool;                   /* where it is counted in; NULL: nowhere */
    struct upstream *upstream;           /* owned in CONNECTING, WAITING, RELAYING */
    size_t counted;                      /* bytes of `request` that worker->body_bytes has */
    uint64_t tried;                      /* bit i: replica i of the version failed us */
    unsigned sent;                       /* times that an engine may have seen the request */
    unsigned stale;                      /* kept connections that turned out to be closed */

    /* The request, kept until the first relayed byte, for another try:
     *   [target and header lines][body before the model][body after it] */
    struct buf request;
    size_t lines_len, before_len, after_len;
    const char *insert;            /* the body has no `model`: what stands before and ... */
    const char *insert_after;      /* ... behind the inserted value; "" otherwise */
    char name[TABLE_NAME_MAX + 1]; /* model as the client wrote it; "" if absent */
    uint64_t sticky;               /* sticky_number(); 0: none */
    bool stream;                   /* the client asked for a stream */
    bool committed;                /* HELD for long: a head and `: waiting` went to the client */
    uint64_t hold_deadline_ns;     /* 0: has not waited yet */
    uint64_t beat_ns;              /* HELD, stream: when its client hears from us next */
    bool waited;                   /* counted in held_total, not yet in unheld */
    unsigned held_model;           /* HELD: index in view->held */

    struct api_key *key; /* counted; NULL: the request showed none of ours */

    char request_id[REQUEST_ID_MAX + 1];

    /* The answer. */
    int status;
    unsigned interim;       /* 1xx answers seen */
    enum http_framing from; /* how the engine frames it */
    enum http_framing to;   /* how we frame it */
    uint64_t left;          /* HTTP_BODY_LENGTH: bytes to come */
    struct chunk_decoder chunks;
    bool engine_keeps; /* the engine keeps the connection */
    bool sse;          /* text/event-stream */
    char last[16];     /* the newest relayed bytes of an SSE answer */
    uint64_t events;   /* of an SSE answer, relayed */
    uint64_t bytes;    /* of the answer's body, relayed */
    unsigned tries;    /* replicas that were chosen for it */

    /* CLOCK_MONOTONIC; 0: has not happened */
    uint64_t began_ns;    /* the round in which the request was whole */
    uint64_t sent_ns;     /* given to the engine, the last time */
    uint64_t first_ns;    /* first bytes of the answer's body */
    uint64_t held_ns;     /* had to wait, the first time */
    uint64_t overhead_ns; /* a duration: what we took until its head was written */
};

/*
 * Takes over a whole request. `body` is the client's bytes, `head` points into
 * them; both only for this call.  Answers through the client, now or later.
 */
void exchange_begin(struct client *c, const struct http_request_head *head, struct span body);

/* From the upstream. */
void exchange_on_connected(struct exchange *x);
/* answer.c says that the head is known: WAITING -> RELAYING. */
void exchange_relaying(struct exchange *x);
/* Returns true if the upstream may be read on. `drained`: nothing is left to read, not even
 * the connection's end. */
bool exchange_on_bytes(struct exchange *x, char *p, size_t n, bool drained);
void exchange_on_upstream_end(struct exchange *x, int why); /* errno; 0: clean end */
void exchange_on_timeout(struct exchange *x);

/* From the client: it has left. */
void exchange_cancel(struct exchange *x);
/* From the client, when the gateway ends: refused, or cut if the answer has begun. */
void exchange_stop(struct exchange *x);

/* Chooses by the newest table and sends, or holds, or says no. NEW only. */
void exchange_dispatch(struct exchange *x);

/* A waiting exchange: bounded in number and time, in order of arrival. */
void hold_add(struct exchange *x, const struct model_route *m);
void hold_remove(struct exchange *x);
/* Tries all held exchanges again (new table, or a failed replica's pause is over). */
void hold_release(struct worker *w);

/* answer.c: the engine's bytes on their way to the client. */
enum answer_progress { ANSWER_MORE, ANSWER_DONE, ANSWER_BAD, ANSWER_CLIENT_LOST };
/* Takes bytes of the answer, relays what can be relayed. WAITING: *used may stop
 * short of n, then the rest is the beginning of a head and comes again with more.
 * 18 bytes before p and 16 behind p + n are overwritten once the head is relayed. */
enum answer_progress answer_feed(struct exchange *x, char *p, size_t n, size_t *used);
/* Ends an answer whose length the engine did not announce. -1: the client is gone. */
int answer_end(struct exchange *x) MUST_CHECK;
/* Tells an SSE client in the stream that its answer is not whole. */
void answer_error_frame(struct exchange *x, const char *code, const char *message);
/* To a client that waits for a stream: a head if none was sent, and a comment. -1:
 * the client is gone. */
int answer_heartbeat(struct exchange *x) MUST_CHECK;
/* Whether an SSE answer has ended with its `data: [DONE]`. */
bool answer_sse_done(const struct exchange *x);

/* request.c: keeps what must be sent; sends it to x->replica over x->upstream. */
void request_store(struct exchange *x, const struct http_request_head *head, struct span body,
                   const struct json_member *model, bool empty_object);
int request_send(struct exchange *x) MUST_CHECK;
/* A client's request id is kept if it is one that can stand in a log line. */
bool request_id_ok(struct span s);

/* --- client: a connection from outside -------------------------------------- */

// clang-format off
#define CLIENT_STATES(X)                                                             \
    X(IDLE,   "idle",   "between requests; no byte of the next one")                 \
    X(HEAD,   "head",   "part of a head is in `in`")                                 \
    X(BODY,   "body",   "the head is understood, the body is arriving")              \
    X(BUSY,   "busy",   "an exchange answers")                                       \
    X(FLUSH,  "flush",  "the whole answer is in `out`; the client takes it")         \
    X(LINGER, "linger", "last answer sent, our side shut; what comes is discarded")  \
    X(HANDSHAKE, "handshake", "TLS is being agreed on")                              \
    X(CLOSED, "closed", "descriptor closed, memory not yet")
// clang-format on

enum client_state {
#define X(id, name, note) CLIENT_##id,
    CLIENT_STATES(X)
#undef X
};

struct client {
    struct watch watch;
    struct grave grave;
    struct timer timer;
    struct list link;      /* in worker->clients */
    struct worker *worker; /* borrowed */
    enum client_state state;
    SSL *ssl;                  /* owned; NULL: no TLS */
    struct exchange *exchange; /* owned while BUSY; NULL otherwise */
    struct buf in;             /* bytes of requests not yet handled */
    struct buf out;            /* answer bytes not yet taken */
    int untaken;               /* while `out` waits: of the socket's own, at the last look */
    size_t scanned;            /* of `in`: searched for the end of the head */
    size_t head_len;           /* BODY: length of the head */
    size_t body_len;           /* BODY, chunked: decoded so far, right behind the head */
    struct chunk_decoder chunks;
    enum http_framing framing; /* BODY */
    size_t content_length;     /* BODY */
    size_t discard;            /* LINGER: bytes that may still be read */
    int minor;                 /* of the request that is being answered */
    bool keep_alive;           /* of that request */
    bool head_only;            /* that request is HEAD */
    bool readable;             /* an edge was seen and not used up */
    bool unread;               /* the request was refused before it was whole */
    bool cut;                  /* FLUSH: the answer is not whole; end visibly */
    bool close_delimited;      /* the answer's end is the connection's end */
    bool hangup;               /* the peer has shut its side; seen with unread bytes before it */
    char *cors;               /* owned; lines for the answer that a browser asked for; NULL: none */
    size_t counted;           /* bytes of `in` that worker->body_bytes has */
    bool feeding;             /* feed() is on the stack */
    unsigned peer_place;      /* of gateway_peer_enter() */
    struct api_key *key;      /* borrowed from the table, while a request is taken; or NULL */
    struct access_note *note; /* owned; for the access log, NULL when there is none */
    char ip[46];
};

/* `place`: of gateway_peer_enter(); given back when the client is closed.  tls: borrowed; NULL
 * for plain HTTP. */
void client_accept(struct worker *w, int fd, const struct sockaddr *peer, unsigned place,
                   SSL_CTX *tls);
void client_close(struct client *c);
/* Closes so that the peer can tell that the answer is not whole. */
void client_cut(struct client *c);
/* Ends it now; an answer under way is refused or visibly cut. */
void client_end(struct client *c);
/* Sends the pieces now, keeps what the socket does not take. -1: it is gone. */
int client_send(struct client *c, struct iovec *pieces, int n) MUST_CHECK;
/* The answer is whole: next request, or the end. */
void client_answered(struct client *c);
/* An answer of our own; headers: further lines with CRLF or NULL. */
void client_reply(struct client *c, int status, const char *content_type, const char *headers,
                  struct span body);
void client_error(struct client *c, enum gateway_error e, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* headers: further lines with CRLF. */
void client_error_headers(struct client *c, enum gateway_error e, const char *headers,
                          const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Asks an idle connection to end, a busy one after its answer. */
void client_drain(struct client *c);

/* --- admit: who may come in ------------------------------------------------- */

/* For tables with a keyring: sets c->key if the request shows one of its keys. False: it was
 * refused, and that was answered. */
bool admit(struct client *c, const struct http_request_head *head);
/* Whether a field shows what has the form of one of our keys. */
bool admit_is_key(const struct http_field *f);

/* --- pages: what the gateway answers by itself ------------------------------ */

/* Answers through the client if the path is its own; false otherwise. */
bool page_answer(struct client *c, const struct http_request_head *head);

/* --- worker ------------------------------------------------------------------ */

struct listener {
    struct watch watch;
    struct worker *worker;
    bool tls;
};

struct gateway;

struct worker {
    unsigned index;
    pthread_t thread;
    struct gateway *gateway;  /* borrowed */
    unsigned gateway_workers; /* how many we are */
    struct loop loop;
    struct watch wake;          /* eventfd: a new table, or stop */
    struct listener *listeners; /* owned */
    size_t nlisteners;
    SSL_CTX *tls;                       /* counted; for new connections; NULL: none yet */
    struct view *view;                  /* counted; NULL before the first table */
    struct counters *counters;          /* borrowed */
    struct worker_row *row;             /* borrowed */
    struct pool *pools[COUNTERS_SLOTS]; /* owned; made at first use */
    struct list clients;
    unsigned nclients;
    unsigned nexchanges;
    size_t body_bytes; /* of requests that are not whole, in all clients' `in` */
    struct list held;  /* in order of arrival */
    struct timer hold_retry;
    struct access_log log;
    uint64_t rng[2];
    int reserve_fd; /* given up for a moment when descriptors run out */
    bool draining;
    char date[64]; /* "Date: ...\r\n" of date_s */
    uint64_t date_s;
    char *scratch;      /* SCRATCH_BYTES, with CHUNK_HEAD_ROOM before and 16 after */
    char *flat;         /* FLAT_BYTES */
    struct buf lines;   /* the head that is being written */
    EVP_MD_CTX *digest; /* owned; made when the first key is looked at */
};

/* A random number of 64 bits; not for secrets. */
uint64_t worker_random(struct worker *w);
const char *worker_date(struct worker *w);
