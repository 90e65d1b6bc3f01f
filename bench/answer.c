/*
 * segue-answer - an upstream that answers at once, for measuring what stands
 * before it.
 *
 * Every POST gets the same JSON answer, or, with "stream":true in its body, the
 * same event stream; all bytes are made at the start, so that a request costs
 * one read and one write.  One epoll loop a thread:
 *
 *   READING ─▶ DELAYED ─▶ SENDING ─▶ READING        a plain answer
 *       └────▶ STREAMING ⇄ BLOCKED ─▶ READING       tokens, one write each
 *
 * GET /health, /v1/models; GET /stats tells how many connections and requests
 * there were, and the head of the last request that carried `X-Probe`.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "address.h"
#include "answers.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "question.h"

enum { READ_BYTES = 65536, EVENTS_MAX = 256, THREADS_MAX = 64 };

/*    id           what is true */
#define CONN_STATES(X)                                             \
    X(READING, "waits for a request, or for the rest of one")      \
    X(DELAYED, "a plain answer is due later; in `delayed`")        \
    X(SENDING, "a part of a whole answer is not sent; in no list") \
    X(STREAMING, "the next token is due; in `streams`")            \
    X(BLOCKED, "a part of a token is not sent; in no list")

enum conn_state {
#define X(id, note) CONN_##id,
    CONN_STATES(X)
#undef X
        CONN_NSTATES
};

struct server {
    struct answer_options options;
    struct address address;
    struct answers answers;
    atomic_ulong accepted, open, requests, streams, refused, cut;
    atomic_bool stop;
    pthread_mutex_t lock; /* guards `probe` */
    struct buf probe;     /* head of the last request with X-Probe */
};

struct conn {
    struct list link;      /* in `delayed` or `streams` of the thread, or alone */
    struct list all;       /* in `conns` of the thread */
    struct thread *thread; /* borrowed */
    enum conn_state state;
    int fd; /* owned */
    bool close_after;
    unsigned tokens_left;
    uint64_t due_ns;
    struct buf in;  /* a request that is not complete */
    struct buf out; /* what the socket did not take */
};

struct thread {
    struct server *server; /* borrowed */
    pthread_t id;
    int epoll, listener; /* owned */
    struct list delayed, streams, conns;
    uint64_t now;
    char *bytes; /* owned; READ_BYTES */
};

#define TO(st) (UINT32_C(1) << CONN_##st)

static const uint32_t allowed[CONN_NSTATES] = {
    [CONN_READING] = TO(DELAYED) | TO(SENDING) | TO(STREAMING) | TO(BLOCKED),
    [CONN_DELAYED] = TO(SENDING) | TO(READING),
    [CONN_SENDING] = TO(READING),
    [CONN_STREAMING] = TO(BLOCKED) | TO(READING),
    [CONN_BLOCKED] = TO(STREAMING) | TO(READING),
};

static void set_state(struct conn *c, enum conn_state next)
{
    ALWAYS(allowed[c->state] & (UINT32_C(1) << next));
    list_remove(&c->link);
    c->state = next;
    if (next == CONN_DELAYED)
        list_append(&c->thread->delayed, &c->link);
    if (next == CONN_STREAMING)
        list_append(&c->thread->streams, &c->link);
}

/* --- a connection -------------------------------------------------------- */

static void conn_close(struct conn *c)
{
    close(c->fd);
    list_remove(&c->link);
    list_remove(&c->all);
    buf_fini(&c->in);
    buf_fini(&c->out);
    atomic_fetch_sub(&c->thread->server->open, 1);
    free(c);
}

/* Sends what it can, keeps the rest in `out`: 1 all sent, 0 not all, -1 the client has left. */
static int conn_send(struct conn *c, struct span s)
{
    ssize_t n = send(c->fd, s.p, s.n, MSG_NOSIGNAL);

    if (n == (ssize_t)s.n)
        return 1;
    if (n < 0 && errno != EAGAIN)
        return -1;
    n = n < 0 ? 0 : n;
    buf_add(&c->out, s.p + n, s.n - (size_t)n);
    return 0;
}

/* Sends a whole answer; -1: the client has left, or the connection ends here. */
static int conn_answer(struct conn *c, struct span answer)
{
    int sent = conn_send(c, answer);

    if (sent < 0)
        return -1;
    if (sent == 0)
        set_state(c, CONN_SENDING);
    else if (c->state != CONN_READING)
        set_state(c, CONN_READING);
    return sent == 1 && c->close_after ? -1 : 0;
}

/* The next token of a stream, or its end. -1 as above. */
static int conn_token(struct conn *c)
{
    struct server *s = c->thread->server;
    bool last = c->tokens_left == 0;

    int sent = conn_send(c, buf_span(last ? &s->answers.stream_end : &s->answers.token));
    if (sent < 0)
        return -1;
    if (!last)
        c->tokens_left--;
    if (last) {
        set_state(c, CONN_READING);
        if (sent == 0)
            set_state(c, CONN_SENDING);
        return sent == 1 && c->close_after ? -1 : 0;
    }
    c->due_ns = c->thread->now + s->options.gap_ns;
    if (sent == 0) {
        if (c->state == CONN_STREAMING)
            set_state(c, CONN_BLOCKED);
    } else {
        list_remove(&c->link);
        list_append(&c->thread->streams, &c->link);
    }
    return 0;
}

static int conn_stream(struct conn *c)
{
    struct server *s = c->thread->server;

    atomic_fetch_add_explicit(&s->streams, 1, memory_order_relaxed);
    c->tokens_left = s->options.tokens ? s->options.tokens - 1 : 0;
    c->due_ns = c->thread->now + s->options.gap_ns;
    int sent = conn_send(c, buf_span(&s->answers.stream_head));
    if (sent < 0)
        return -1;
    set_state(c, sent ? CONN_STREAMING : CONN_BLOCKED);
    return 0;
}

static int conn_stats(struct conn *c)
{
    struct server *s = c->thread->server;
    struct buf body = {0}, out = {0};

    buf_addf(&body, "{\"accepted\":%lu,\"open\":%lu,\"requests\":%lu,\"streams\":%lu",
             atomic_load(&s->accepted), atomic_load(&s->open), atomic_load(&s->requests),
             atomic_load(&s->streams));
    buf_addf(&body, ",\"refused\":%lu,\"cut\":%lu,\"probe\":\"", atomic_load(&s->refused),
             atomic_load(&s->cut));
    pthread_mutex_lock(&s->lock);
    buf_add_json(&body, buf_span(&s->probe));
    pthread_mutex_unlock(&s->lock);
    buf_add_str(&body, "\"}");
    answers_whole(&out, "200 OK", "application/json", buf_span(&body));
    int done = conn_answer(c, buf_span(&out));
    buf_fini(&body);
    buf_fini(&out);
    return done;
}

/* --- requests ------------------------------------------------------------ */

static int handle_post(struct conn *c, const struct question *r)
{
    struct server *s = c->thread->server;

    atomic_fetch_add_explicit(&s->requests, 1, memory_order_relaxed);
    if (r->probe) {
        pthread_mutex_lock(&s->lock);
        buf_clear(&s->probe);
        buf_add_span(&s->probe, r->head);
        pthread_mutex_unlock(&s->lock);
    }
    if (question_wants_stream(r))
        return conn_stream(c);
    if (s->options.delay_ns == 0)
        return conn_answer(c, buf_span(&s->answers.plain));
    c->due_ns = c->thread->now + s->options.delay_ns;
    set_state(c, CONN_DELAYED);
    return 0;
}

static int handle(struct conn *c, const struct question *r)
{
    struct server *s = c->thread->server;

    c->close_after = r->close;
    if (span_eq(r->method, SPAN_LIT("POST")))
        return handle_post(c, r);
    if (!span_eq(r->method, SPAN_LIT("GET")))
        return conn_answer(c, buf_span(&s->answers.not_found));
    if (span_eq(r->path, SPAN_LIT("/stats")))
        return conn_stats(c);
    if (span_eq(r->path, SPAN_LIT("/v1/models")))
        return conn_answer(c, buf_span(&s->answers.models));
    if (span_eq(r->path, SPAN_LIT("/health")))
        return conn_answer(c, buf_span(&s->answers.health));
    return conn_answer(c, buf_span(&s->answers.not_found));
}

/* Handles the requests in s as far as they can be answered now; *used bytes. */
static int serve(struct conn *c, struct span s, size_t *used)
{
    int more = 0;

    for (*used = 0; c->state == CONN_READING && *used < s.n && more == 0;) {
        struct question r;
        struct buf joined = {0};
        int got = question_read(&r, span_of(s.p + *used, s.n - *used), &joined);
        if (got > 0) {
            *used += r.total;
            more = handle(c, &r);
        } else if (got < 0) {
            atomic_fetch_add(&c->thread->server->refused, 1);
            c->close_after = true;
            *used = s.n;
            more = conn_answer(c, buf_span(&c->thread->server->answers.bad));
        }
        buf_fini(&joined);
        if (got == 0)
            break;
    }
    return more;
}

static int serve_held(struct conn *c)
{
    size_t used;

    int more = serve(c, buf_span(&c->in), &used);
    buf_consume(&c->in, used);
    if (more == 0 && buf_pending(&c->in) == 0)
        buf_fini(&c->in);
    return more;
}

static int conn_bytes(struct conn *c, size_t n)
{
    size_t used = 0;

    if (buf_pending(&c->in)) {
        buf_add(&c->in, c->thread->bytes, n);
        return buf_pending(&c->in) > 2 * QUESTION_BODY_MAX ? -1 : serve_held(c);
    }
    int more = serve(c, span_of(c->thread->bytes, n), &used);
    if (more == 0 && used < n)
        buf_add(&c->in, c->thread->bytes + used, n - used);
    return more;
}

static int conn_read(struct conn *c)
{
    for (;;) {
        ssize_t n = read(c->fd, c->thread->bytes, READ_BYTES);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0) {
            if (c->state != CONN_READING)
                atomic_fetch_add(&c->thread->server->cut, 1);
            return -1;
        }
        if (conn_bytes(c, (size_t)n) < 0)
            return -1;
        if (n < READ_BYTES)
            return 0;
    }
}

/* The socket takes bytes again. */
static int conn_flush(struct conn *c)
{
    struct span s = buf_span(&c->out);

    ssize_t n = send(c->fd, s.p, s.n, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    buf_consume(&c->out, (size_t)n);
    if (buf_pending(&c->out))
        return 0;
    buf_fini(&c->out);
    if (c->state == CONN_BLOCKED) {
        c->due_ns = c->thread->now + c->thread->server->options.gap_ns;
        set_state(c, CONN_STREAMING);
        return 0;
    }
    set_state(c, CONN_READING);
    return c->close_after ? -1 : serve_held(c);
}

static void conn_event(struct conn *c, uint32_t events)
{
    int more = 0;

    if ((events & EPOLLOUT) && buf_pending(&c->out))
        more = conn_flush(c);
    if (more == 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        more = conn_read(c);
    if (more == 0 && (events & EPOLLRDHUP))
        more = conn_read(c);
    if (more < 0)
        conn_close(c);
}

/* --- the loop ------------------------------------------------------------ */

static void accept_all(struct thread *t)
{
    int fd;

    while ((fd = accept4(t->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = NEW(struct conn);
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                 .data.ptr = c};
        c->thread = t;
        c->fd = fd;
        list_init(&c->link);
        list_append(&t->conns, &c->all);
        atomic_fetch_add(&t->server->accepted, 1);
        atomic_fetch_add(&t->server->open, 1);
        if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
            conn_close(c);
    }
}

/* Each stream that is due gets one token; each delayed answer that is due is sent. */
static void send_due(struct thread *t)
{
    struct list due;

    list_init(&due);
    while (!list_empty(&t->streams)) {
        struct conn *c = CONTAINER_OF(t->streams.next, struct conn, link);
        if (c->due_ns > t->now)
            break;
        list_remove(&c->link);
        list_append(&due, &c->link);
    }
    while (!list_empty(&due)) {
        struct conn *c = CONTAINER_OF(due.next, struct conn, link);
        if (conn_token(c) < 0 || (c->state == CONN_READING && serve_held(c) < 0))
            conn_close(c);
    }
    while (!list_empty(&t->delayed)) {
        struct conn *c = CONTAINER_OF(t->delayed.next, struct conn, link);
        if (c->due_ns > t->now)
            break;
        if (conn_answer(c, buf_span(&t->server->answers.plain)) < 0 ||
            (c->state == CONN_READING && serve_held(c) < 0))
            conn_close(c);
    }
}

static struct timespec sleep_time(const struct thread *t)
{
    uint64_t until = t->now + UINT64_C(50000000); /* then `stop` is looked at */
    const struct list *lists[] = {&t->streams, &t->delayed};

    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        if (list_empty(lists[i]))
            continue;
        uint64_t due = CONTAINER_OF(lists[i]->next, struct conn, link)->due_ns;
        until = due < until ? due : until;
    }
    uint64_t ns = until > t->now ? until - t->now : 0;
    return (struct timespec){.tv_nsec = (long)ns};
}

static void *work(void *arg)
{
    struct thread *t = arg;
    struct epoll_event events[EVENTS_MAX];

    t->now = clock_ns();
    while (!atomic_load_explicit(&t->server->stop, memory_order_relaxed)) {
        struct timespec patience = sleep_time(t);
        int n = epoll_pwait2(t->epoll, events, EVENTS_MAX, &patience, NULL);
        t->now = clock_ns();
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                conn_event(events[i].data.ptr, events[i].events);
            else
                accept_all(t);
        }
        send_due(t);
    }
    LIST_FOR_EACH_SAFE(it, &t->conns)
    conn_close(CONTAINER_OF(it, struct conn, all));
    close(t->listener);
    close(t->epoll);
    free(t->bytes);
    return NULL;
}

/* One listener for each thread; a unix socket is one and shared. */
static int thread_start(struct server *s, struct thread *t, int shared_listener, struct err *err)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = NULL};

    t->server = s;
    list_init(&t->delayed);
    list_init(&t->streams);
    list_init(&t->conns);
    t->listener = shared_listener >= 0 ? dup(shared_listener)
                                       : address_listen(&s->address, s->options.threads > 1, err);
    if (t->listener < 0)
        return -1;
    t->bytes = mem_alloc(READ_BYTES);
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (t->epoll < 0 || epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->listener, &ev) < 0)
        return err_set(err, 0, "cannot watch %s: %s", s->address.text, strerror(errno));
    int failed = pthread_create(&t->id, NULL, work, t);
    return failed ? err_set(err, 0, "cannot start a thread: %s", strerror(failed)) : 0;
}

/* --- options and start --------------------------------------------------- */

_Noreturn static void usage(int status)
{
    fputs("usage: segue-answer --listen PORT|HOST:PORT|unix:PATH [OPTION...]\n"
          "  --name NAME      \"model\" of the answers (default hy-mt)\n"
          "  --bytes N        length of a plain answer's body (default 500)\n"
          "  --tokens N       events of a stream (default 200)\n"
          "  --gap-ms MS      between two tokens; 0: as fast as the socket takes them (default 0)\n"
          "  --delay-ms MS    before a plain answer (default 0)\n"
          "  --threads N      (default 1)\n"
          "Prints one line with its address when it listens.\n",
          status ? stderr : stdout);
    exit(status);
}

static double number(const char *name, const char *text, double most)
{
    char *end;
    double v = strtod(text, &end);

    if (*text && !*end && v >= 0 && v <= most)
        return v;
    fprintf(stderr, "segue-answer: --%s wants a number from 0 to %g: %s\n", name, most, text);
    exit(2);
}

static void read_options(struct server *s, int argc, char **argv)
{
    static const struct option rows[] = {
        {"listen", 1, NULL, 'l'},  {"name", 1, NULL, 'n'},   {"bytes", 1, NULL, 'b'},
        {"tokens", 1, NULL, 't'},  {"gap-ms", 1, NULL, 'g'}, {"delay-ms", 1, NULL, 'd'},
        {"threads", 1, NULL, 'T'}, {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0}};
    struct answer_options *o = &s->options;
    const char *listen = NULL;
    struct err err;
    int id, row;

    while ((id = getopt_long(argc, argv, "", rows, &row)) != -1) {
        if (id == '?' || id == 'h')
            usage(id == '?' ? 2 : 0);
        if (id == 'l')
            listen = optarg;
        else if (id == 'n')
            o->name = optarg;
        else if (id == 'b')
            o->bytes = (unsigned)number("bytes", optarg, 1 << 26);
        else if (id == 't')
            o->tokens = (unsigned)number("tokens", optarg, 1e9);
        else if (id == 'g')
            o->gap_ns = (uint64_t)(number("gap-ms", optarg, 1e6) * 1e6);
        else if (id == 'd')
            o->delay_ns = (uint64_t)(number("delay-ms", optarg, 1e6) * 1e6);
        else
            o->threads = (unsigned)number("threads", optarg, THREADS_MAX);
    }
    if (!listen || optind != argc || o->threads == 0)
        usage(2);
    if (address_parse(&s->address, listen, &err) < 0) {
        fprintf(stderr, "segue-answer: --listen: %s\n", err.text);
        exit(2);
    }
}

static int start_threads(struct server *s, struct thread *threads, struct err *err)
{
    int shared = -1;

    if (address_is_unix(&s->address) && (shared = address_listen(&s->address, false, err)) < 0)
        return -1;
    for (unsigned i = 0; i < s->options.threads; i++)
        if (thread_start(s, &threads[i], shared, err) < 0)
            return -1;
    if (shared >= 0)
        close(shared);
    return 0;
}

int main(int argc, char **argv)
{
    static struct server s;
    static struct thread threads[THREADS_MAX];
    struct rlimit files;
    struct err err;
    sigset_t signals;
    int number_of_signal;

    log_start("answer", LOG_INFO);
    s.options = (struct answer_options){.name = "hy-mt", .bytes = 500, .tokens = 200, .threads = 1};
    read_options(&s, argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    answers_make(&s.answers, &s.options);
    pthread_mutex_init(&s.lock, NULL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    if (start_threads(&s, threads, &err) < 0) {
        fprintf(stderr, "segue-answer: %s\n", err.text);
        return 1;
    }
    printf("%s\n", s.address.text);
    fflush(stdout);
    sigwait(&signals, &number_of_signal);

    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < s.options.threads; i++)
        pthread_join(threads[i].id, NULL);
    answers_fini(&s.answers);
    buf_fini(&s.probe);
    return 0;
}
