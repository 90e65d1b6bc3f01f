/*
 * engine - see engine.h.
 *
 * The lock guards the inbox, the outbox, each stream's `said`, and the words
 * between the threads.  It is held for a few pointer moves, once a step; neither
 * thread computes or writes while it has it.
 */
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/backend.h"
#include "engine/cores.h"

enum {
    THREAD_BYTES = 32 << 20 /* of weights, for each thread that is started by default */
};

struct engine {
    const struct options *o; /* borrowed */
    const struct engine_events *events;
    void *arg;
    pthread_t thread;
    uv_async_t wake_http;
    struct metrics metrics;

    /* the HTTP thread's */
    enum engine_state state;
    size_t streams;      /* submitted, not ended */
    struct model *model; /* counted */
    int context;
    void (*closed)(void *);
    void *closed_arg;

    pthread_mutex_t lock;
    pthread_cond_t wake_decoder;
    struct list inbox;  /* struct stream, by link; references of the decode thread */
    struct list outbox; /* struct stream, by out; ended ones carry the decode thread's reference */
    bool news;          /* loaded or failed, not yet told */
    bool failed;
    struct err reason;      /* with failed */
    struct model *incoming; /* counted; loaded, not yet taken by the HTTP thread */
    int incoming_context;
    int stop; /* atomic too: the loader looks without the lock */
};

/* --- decode thread ------------------------------------------------------------ */

static bool go_on(float progress, void *arg)
{
    struct engine *e = arg;

    return !__atomic_load_n(&e->stop, __ATOMIC_RELAXED);
}

/*
 * The threads of one step meet at a barrier after each operation and spin there.  When a
 * core is taken away from one of them the others burn a whole time slice, and a step of a
 * small model is much shorter than that: on a busy machine with two cores a second thread made
 * tiny-mt ten times slower, on an idle one a fifth faster.  So small models get fewer.
 */
static int default_threads(const struct model *m)
{
    uint64_t worth = m->file_bytes / THREAD_BYTES;
    int cores = cores_usable();

    return worth < 1 ? 1 : worth < (uint64_t)cores ? (int)worth : cores;
}

static struct decoder *load(struct engine *e, struct ggml_threadpool **pool, struct err *err)
{
    const struct options *o = e->o;
    struct model_options how = {
        .gpu_layers = o->gpu_layers, .mmap = o->mmap, .go_on = go_on, .arg = e};
    uint64_t began = clock_ns();

    struct model *m = model_load(o->model, &how, err);
    if (!m)
        return NULL;
    int threads = o->threads ? o->threads : default_threads(m);
    *pool = backend_pool_new(threads, (unsigned)o->poll);
    int most = m->trained > 0 && m->trained < 4096 ? m->trained : 4096;
    struct decoder_options d = {.parallel = o->parallel,
                                .context = o->context ? o->context : most,
                                .batch = o->batch,
                                .threads = threads,
                                .unified = o->unified,
                                .stall_ms = o->stall_ms,
                                .pool = *pool};
    if (m->trained > 0 && d.context > m->trained)
        log_warn("--ctx-size %d is more than the %d tokens that %s was trained with", d.context,
                 m->trained, m->path);
    struct decoder *decoder = decoder_new(m, &d, &e->metrics, err);
    model_unref(m); /* the decoder keeps it */
    if (decoder && decoder_warm(decoder, err)) {
        decoder_free(decoder);
        decoder = NULL;
    }
    if (decoder)
        log_info("%s (%s, %.1f MB) is ready after %.0f ms: %d streams of %d tokens, %d threads",
                 m->path, m->architecture, (double)m->file_bytes / 1e6,
                 (double)(clock_ns() - began) / 1e6, o->parallel, d.context, threads);
    return decoder;
}

/* Tells the HTTP thread how the load ended. */
static void announce(struct engine *e, struct decoder *d, const struct err *err)
{
    pthread_mutex_lock(&e->lock);
    e->news = true;
    e->failed = !d;
    if (d) {
        e->incoming = model_ref(decoder_model(d));
        e->incoming_context = decoder_context(d);
    } else {
        e->reason = *err;
    }
    pthread_mutex_unlock(&e->lock);
    uv_async_send(&e->wake_http);
}

/* Moves what a stream said in this step to where the HTTP thread finds it. */
static void publish(struct stream *s, void *arg)
{
    struct engine *e = arg;

    if (buf_pending(&s->fresh.text) == 0 && s->fresh.finish == FINISH_NONE)
        return;
    pthread_mutex_lock(&e->lock);
    buf_add_span(&s->said.text, buf_span(&s->fresh.text));
    buf_clear(&s->fresh.text);
    s->said.finish = s->fresh.finish;
    s->said.tokens = s->fresh.tokens;
    s->said.reused = s->fresh.reused;
    s->said.error = s->fresh.error;
    if (list_empty(&s->out))
        list_append(&e->outbox, &s->out);
    /* An ended stream is the HTTP thread's from here on: it may free it at once. */
    pthread_mutex_unlock(&e->lock);
}

/* Waits until there is something to do; false when it is time to end. */
static bool wait_for_work(struct engine *e, struct decoder *d)
{
    pthread_mutex_lock(&e->lock);
    while (list_empty(&e->inbox) && decoder_idle(d) && !e->stop)
        pthread_cond_wait(&e->wake_decoder, &e->lock);
    while (!list_empty(&e->inbox)) {
        struct stream *s = CONTAINER_OF(e->inbox.next, struct stream, link);
        list_remove(&s->link);
        decoder_add(d, s);
    }
    bool stop = e->stop && decoder_idle(d);
    pthread_mutex_unlock(&e->lock);
    return !stop;
}

static void *decode(void *arg)
{
    struct engine *e = arg;
    struct ggml_threadpool *pool = NULL;
    struct err err = {0};

    struct decoder *d = load(e, &pool, &err);
    announce(e, d, &err);
    while (d && wait_for_work(e, d)) {
        decoder_step(d, publish, e);
        uv_async_send(&e->wake_http);
    }
    decoder_free(d);
    backend_pool_free(pool);
    return NULL;
}

/* --- HTTP thread --------------------------------------------------------------- */

static void take_news(struct engine *e)
{
    struct model *m = NULL;
    struct err reason;

    pthread_mutex_lock(&e->lock);
    bool news = e->news, failed = e->failed;
    e->news = false;
    if (news) {
        m = e->incoming;
        e->incoming = NULL;
        e->context = e->incoming_context;
        reason = e->reason;
    }
    pthread_mutex_unlock(&e->lock);
    if (!news || e->state == ENGINE_CLOSED) {
        model_unref(m);
        return;
    }
    ALWAYS(e->state == ENGINE_LOADING);
    e->model = m;
    e->state = failed ? ENGINE_FAILED : ENGINE_READY;
    e->events->on_state(e->state, failed ? &reason : NULL, e->arg);
}

/* Takes one stream's news out of the outbox; NULL: there is none. */
static struct stream *take_said(struct engine *e, struct said *said)
{
    struct stream *s = NULL;

    pthread_mutex_lock(&e->lock);
    if (!list_empty(&e->outbox)) {
        s = CONTAINER_OF(e->outbox.next, struct stream, out);
        list_remove(&s->out);
        *said = s->said;
        s->said.text = (struct buf){0};
    }
    pthread_mutex_unlock(&e->lock);
    return s;
}

static void on_wake(uv_async_t *async)
{
    struct engine *e = CONTAINER_OF(async, struct engine, wake_http);
    struct said said;
    struct stream *s;

    take_news(e);
    while ((s = take_said(e, &said))) {
        bool ended = said.finish != FINISH_NONE;
        if (ended)
            e->streams--;
        e->events->on_said(s, &said, e->arg);
        buf_fini(&said.text);
        if (ended)
            stream_unref(s); /* the decode thread's reference */
    }
}

struct engine *engine_start(uv_loop_t *loop, const struct options *o,
                            const struct engine_events *events, void *arg)
{
    struct engine *e = NEW(struct engine);

    e->o = o;
    e->events = events;
    e->arg = arg;
    list_init(&e->inbox);
    list_init(&e->outbox);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wake_decoder, NULL);
    ALWAYS(uv_async_init(loop, &e->wake_http, on_wake) == 0);
    ALWAYS(pthread_create(&e->thread, NULL, decode, e) == 0);
    return e;
}

enum engine_state engine_state(const struct engine *e)
{
    return e->state;
}

struct model *engine_model(const struct engine *e)
{
    return e->model;
}

int engine_context(const struct engine *e)
{
    return e->context;
}

struct metrics *engine_metrics(struct engine *e)
{
    return &e->metrics;
}

size_t engine_streams(const struct engine *e)
{
    return e->streams;
}

int engine_submit(struct engine *e, struct stream **streams, size_t n, struct err *err)
{
    size_t most = (size_t)e->o->parallel + (size_t)e->o->queue;

    ALWAYS(e->state == ENGINE_READY);
    if (e->streams + n > most) {
        metric_add(&e->metrics.requests_refused, 1);
        return err_set(err, 429,
                       "%zu streams run or wait (--parallel %d, --queue %d) and this request needs "
                       "%zu; try again later",
                       e->streams, e->o->parallel, e->o->queue, n);
    }
    e->streams += n;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < n; i++)
        list_append(&e->inbox, &streams[i]->link);
    pthread_cond_signal(&e->wake_decoder);
    pthread_mutex_unlock(&e->lock);
    return 0;
}

void engine_cancel(struct engine *e, struct stream *s)
{
    __atomic_store_n(&s->cancelled, 1, __ATOMIC_RELAXED);
}

static void on_closed(uv_handle_t *handle)
{
    struct engine *e = CONTAINER_OF((uv_async_t *)handle, struct engine, wake_http);
    void (*closed)(void *) = e->closed;
    void *arg = e->closed_arg;

    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->wake_decoder);
    model_unref(e->model);
    free(e);
    closed(arg);
}

void engine_close(struct engine *e, void (*closed)(void *arg), void *arg)
{
    e->closed = closed;
    e->closed_arg = arg;
    pthread_mutex_lock(&e->lock);
    __atomic_store_n(&e->stop, 1, __ATOMIC_RELAXED);
    pthread_cond_signal(&e->wake_decoder);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    e->state = ENGINE_CLOSED;
    on_wake(&e->wake_http); /* what was said last; gives the references back */
    uv_close((uv_handle_t *)&e->wake_http, on_closed);
}
