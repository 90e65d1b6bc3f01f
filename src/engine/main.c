/*
 * main - segue-engine: listen, load, serve, end.
 *
 *   RUNNING ──SIGTERM, SIGINT──▶ FINISHING ──no stream left──▶ CLOSING ──▶ exit 0
 *      │                            └──second signal, time over──▶ ▲
 *      └──model cannot be loaded───────────────────────────────────┴──▶ exit 1
 *
 * The sockets listen before the model is loaded: whoever asks early is told to wait,
 * not refused.
 */
#include <signal.h>
#include <stdio.h>

#include "base/log.h"
#include "engine/api.h"
#include "engine/backend.h"

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    LAST_WORDS_MS = 1000 /* for the sockets to take what was said last */
};

struct program {
    struct options o;
    uv_loop_t loop;
    uv_signal_t term, interrupt;
    uv_timer_t deadline;
    uv_check_t check; /* FINISHING and CLOSING */
    struct http_server *server;
    struct api api;
    bool closing;
    int status; /* to exit with */
};

static void on_engine_closed(void *arg)
{
    struct program *p = arg;

    p->api.engine = NULL;
}

static void close_handles(struct program *p)
{
    sigset_t both;

    if (uv_is_closing((uv_handle_t *)&p->check))
        return;
    /* libuv gives the signals their deadly meaning back; one that comes now must not
     * turn an orderly end into another exit status. */
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGINT);
    pthread_sigmask(SIG_BLOCK, &both, NULL);
    http_server_close(p->server);
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->interrupt, NULL);
    uv_close((uv_handle_t *)&p->deadline, NULL);
    uv_close((uv_handle_t *)&p->check, NULL);
}

static void on_last_words(uv_timer_t *timer)
{
    close_handles(timer->data);
}

/* Streams that still run are cut; the connections get `ms` to take the last words. */
static void close_all(struct program *p, uint64_t ms)
{
    if (p->closing)
        return;
    p->closing = true;
    exchange_cut_all(&p->api.exchanges, "the engine is shutting down");
    engine_close(p->api.engine, on_engine_closed, p);
    uv_timer_start(&p->deadline, on_last_words, ms, 0);
}

static void on_deadline(uv_timer_t *timer)
{
    struct program *p = timer->data;

    log_warn("%zu streams did not end within %d s (--shutdown-timeout); they are cut",
             engine_streams(p->api.engine), p->o.shutdown_s);
    close_all(p, LAST_WORDS_MS);
}

/* After each turn, once we are to end: is anything left to do or to send? */
static void on_turn(uv_check_t *check)
{
    struct program *p = check->data;

    if (!list_empty(&p->api.exchanges.open) || http_server_calls(p->server) ||
        http_server_unsent(p->server))
        return;
    close_all(p, 0);
    close_handles(p);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct program *p = signal->data;

    if (p->api.stopping) {
        log_info("signal %d again: ending at once", number);
        close_all(p, 0);
        return;
    }
    p->api.stopping = true;
    log_info("signal %d: finishing %zu streams", number, engine_streams(p->api.engine));
    uv_timer_start(&p->deadline, on_deadline, (uint64_t)p->o.shutdown_s * 1000, 0);
    uv_check_start(&p->check, on_turn);
}

static void on_state(enum engine_state state, const struct err *err, void *arg)
{
    struct program *p = arg;

    if (state != ENGINE_FAILED)
        return;
    if (!p->api.stopping) {
        log_error("%s", err->text);
        p->status = EXIT_FAILED;
    }
    close_all(p, LAST_WORDS_MS);
    uv_check_start(&p->check, on_turn);
}

static void on_said(struct stream *s, const struct said *said, void *arg)
{
    struct program *p = arg;

    exchange_said(&p->api.exchanges, s, said);
}

static int start_listening(struct program *p, struct err *err)
{
    struct http_server_limits limits = {.receive_ms = 60000, .connections = 4096};

    p->server = http_server_new(&p->loop, &limits, api_handle, &p->api);
    for (int i = 0; i < p->o.nlisten; i++)
        if (http_server_listen(p->server, p->o.listen[i], err))
            return -1;
    if (http_server_port(p->server))
        log_info("listening on port %d", http_server_port(p->server));
    return 0;
}

static void start_signals(struct program *p)
{
    uv_signal_init(&p->loop, &p->term);
    uv_signal_init(&p->loop, &p->interrupt);
    uv_timer_init(&p->loop, &p->deadline);
    uv_check_init(&p->loop, &p->check);
    p->term.data = p->interrupt.data = p->deadline.data = p->check.data = p;
    uv_signal_start(&p->term, on_signal, SIGTERM);
    uv_signal_start(&p->interrupt, on_signal, SIGINT);
}

static int serve(struct program *p)
{
    static const struct engine_events events = {on_state, on_said};
    struct err err;

    uv_loop_init(&p->loop);
    list_init(&p->api.exchanges.open);
    p->api.o = &p->o;
    start_signals(p); /* before anybody can know that we are here */
    if (start_listening(p, &err)) {
        log_error("%s", err.text);
        p->status = EXIT_FAILED;
        close_handles(p);
    } else {
        p->api.engine = engine_start(&p->loop, &p->o, &events, p);
        p->api.exchanges.engine = p->api.engine;
        p->api.exchanges.model = p->o.name;
    }
    uv_run(&p->loop, UV_RUN_DEFAULT);
    ALWAYS(uv_loop_close(&p->loop) == 0);
    return p->status;
}

int main(int argc, char **argv)
{
    static struct program p;
    struct err err;

    switch (options_read(&p.o, argc, argv, &err)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_WRONG:
        fprintf(stderr, "segue-engine: %s\n", err.text);
        return EXIT_USAGE;
    case OPTIONS_RUN:
        break;
    }
    log_start("engine", p.o.verbose ? LOG_DEBUG : LOG_INFO);
    if (backend_start(p.o.backends, p.o.verbose, &err)) {
        log_error("%s", err.text);
        return EXIT_FAILED;
    }
    int status = serve(&p);
    backend_stop();
    return status;
}
