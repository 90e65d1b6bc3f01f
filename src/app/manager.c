/*
 * manager - makes the parts, runs the loop, takes the parts down.
 *
 *   STARTING ─▶ RUNNING ─▶ DRAINING ─▶ ENDING ─▶ CLOSED
 *      └──── a part cannot be made ───────────────▲
 *
 * Start: configuration (nothing is touched before it is whole), state folder and
 * its lock, store, models, admin socket, gateway, engines, first table.
 * Stop: the gateway finishes its streams, then engines, then everything else.
 */
#include "app/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app/access_file.h"
#include "app/internal.h"
#include "app/metrics.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"

enum { TICK_MS = 20, REST_MS = 2000 };

static const uint32_t allowed[] = {
#define TO(id) (UINT32_C(1) << MANAGER_##id)
    [MANAGER_STARTING] = TO(RUNNING) | TO(DRAINING) | TO(ENDING),
    [MANAGER_RUNNING] = TO(DRAINING),
    [MANAGER_DRAINING] = TO(ENDING),
    [MANAGER_ENDING] = TO(CLOSED),
    [MANAGER_CLOSED] = 0,
#undef TO
};

static void set_state(struct manager *m, enum manager_state next)
{
    ALWAYS(allowed[m->state] & (UINT32_C(1) << next));
    m->state = next;
    ALWAYS((m->link != NULL) || next == MANAGER_ENDING || next == MANAGER_CLOSED);
    ALWAYS(!m->fleet || next != MANAGER_CLOSED);
}

struct model *manager_model(const struct manager *m, const char *name)
{
    for (size_t i = 0; i < m->nmodels; i++)
        if (strcmp(m->models[i]->config->name, name) == 0)
            return m->models[i];
    return NULL;
}

/* --- one look at everything --------------------------------------------------------------- */

static void say_ready(struct manager *m)
{
    bool ready = false;

    for (size_t i = 0; i < m->nmodels; i++)
        ready |= version_count(m->models[i]->serving, IN_STATE(READY)) > 0;
    if (m->ready_said || !ready || m->acked != m->epoch)
        return;
    m->ready_said = true;

    json_t *gateway = gateway_link_json(m->link), *address;
    size_t i;
    printf("segue: ready on");
    json_array_foreach(json_object_get(gateway, "listen"), i, address)
        printf(" %s%s", address_is_tls(json_string_value(address)) ? "" : "http://",
               json_string_value(address));
    printf(" (admin %s)\n", m->config->admin_socket);
    fflush(stdout);
    json_decref(gateway);
    owner_read_files(m);
}

/* The store's log is moved into its database when nobody waits for us. */
static void on_rest(uv_timer_t *timer)
{
    struct manager *m = timer->data;

    store_checkpoint(m->store);
}

static void on_soon(uv_timer_t *timer)
{
    struct manager *m = timer->data;

    if (m->state != MANAGER_RUNNING)
        return;
    bool busy = owner_look(m);
    busy |= fleetwork_reconcile(m);
    fleetwork_publish(m);
    owner_finish(m);
    say_ready(m);
    if (busy && !uv_is_active((uv_handle_t *)&m->tick))
        uv_timer_start(&m->tick, on_soon, TICK_MS, TICK_MS);
    if (!busy)
        uv_timer_stop(&m->tick);
    uv_timer_start(&m->rest, on_rest, REST_MS, 0); /* later again with each change */
}

void manager_soon(struct manager *m)
{
    if (m->state == MANAGER_RUNNING && !uv_is_active((uv_handle_t *)&m->soon))
        uv_timer_start(&m->soon, on_soon, 0, 0);
}

void manager_after_answers(struct manager *m)
{
    /* libuv runs timers that are due before it lets answers out. */
    if (m->state == MANAGER_RUNNING && !uv_is_active((uv_handle_t *)&m->soon))
        uv_timer_start(&m->soon, on_soon, 1, 0);
}

void manager_again(struct manager *m, uint64_t after_ms)
{
    if (m->state <= MANAGER_RUNNING && !uv_is_active((uv_handle_t *)&m->again))
        uv_timer_start(&m->again, on_soon, after_ms, 0);
}

/* --- stopping ----------------------------------------------------------------------------- */

static void close_handle(void *handle)
{
    uv_close(handle, NULL);
}

/* Everything that keeps the loop alive, but files that are still being read. */
static void close_rest(struct manager *m)
{
    set_state(m, MANAGER_CLOSED);
    admin_close(m->admin);
    m->admin = NULL;
    metrics_stop(m);
    close_handle(&m->soon);
    close_handle(&m->tick);
    close_handle(&m->rest);
    close_handle(&m->again);
    close_handle(&m->on_term);
    close_handle(&m->on_int);
    close_handle(&m->on_hup);
}

static void on_fleet_closed(void *arg)
{
    struct manager *m = arg;

    m->fleet = NULL;
    close_rest(m);
}

static void forget_members(struct manager *m)
{
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++)
            m->models[i]->versions[k]->nmembers = 0;
}

static void end_fleet(struct manager *m)
{
    set_state(m, MANAGER_ENDING);
    if (!m->fleet) {
        close_rest(m);
        return;
    }
    if (!m->end_engines)
        forget_members(m); /* no event comes for them any more */
    fleet_close(m->fleet, m->end_engines, on_fleet_closed, m);
    if (m->hurried && m->end_engines)
        fleet_hurry(m->fleet);
}

static void on_link_closed(void *arg)
{
    struct manager *m = arg;

    m->link = NULL;
    end_fleet(m);
}

static uint64_t drain_ms(const struct manager *m)
{
    uint64_t longest = 0;

    for (size_t i = 0; i < m->nmodels; i++)
        if (m->models[i]->config->update.drain_ms > longest)
            longest = m->models[i]->config->update.drain_ms;
    return longest;
}

static void stop(struct manager *m, bool end_engines)
{
    if (m->state != MANAGER_RUNNING)
        return;
    log_info("stopping: the gateway finishes its streams%s",
             end_engines ? ", then the engines end" : "; the engines stay");
    m->end_engines = end_engines;
    owner_abandon(m);
    apikeys_abandon(m);
    uv_timer_stop(&m->tick);
    uv_timer_stop(&m->again);
    set_state(m, MANAGER_DRAINING);
    certificate_stop(m);
    gateway_link_close(m->link, true, drain_ms(m), on_link_closed, m);
}

static void hurry(struct manager *m)
{
    if (m->hurried)
        return;
    m->hurried = true;
    log_warn("stopping at once");
    if (m->state == MANAGER_DRAINING)
        gateway_link_close(m->link, true, 0, on_link_closed, m);
    else if (m->state == MANAGER_ENDING && m->fleet && m->end_engines)
        fleet_hurry(m->fleet);
}

static void on_stop_signal(uv_signal_t *handle, int number)
{
    struct manager *m = handle->data;

    if (m->state == MANAGER_RUNNING)
        stop(m, true);
    else
        hurry(m);
}

static void on_stop_verb(struct admin_call *call, bool engines, void *arg)
{
    struct manager *m = arg;

    admin_reply(call, 202, json_pack("{s:b, s:b}", "stopping", 1, "engines", engines));
    stop(m, engines);
}

/* --- SIGHUP ------------------------------------------------------------------------------- */

/* At the start, and after a rotation of the file. */
static int open_access_log(struct manager *m, struct err *err)
{
    const struct config *c = m->config;
    int fd = c->access_log_file ? access_file_open(c->access_log_file, err) : -1;

    if (c->access_log_file && fd < 0)
        return -1;
    gateway_link_access_log(m->link, fd, c->access_log_text);
    return 0;
}

static void reopen_access_log(struct manager *m)
{
    struct err err;

    if (!m->link || !m->config->access_log_file)
        return;
    if (open_access_log(m, &err) == 0)
        log_info("%s is opened anew", m->config->access_log_file);
    else
        log_error("%s; the one that is open stays", err.text);
}

static void on_reload_signal(uv_signal_t *handle, int number)
{
    struct manager *m = handle->data;
    struct buf text = {0};

    reopen_access_log(m);
    if (m->link)
        certificate_reload(m);
    struct config *read = config_load(m->config_file, &text);

    if (buf_pending(&text))
        fputs(buf_cstr(&text), stderr);
    buf_clear(&text);
    if (!read) {
        log_error("%s has errors; the running configuration stays", m->config_file);
    } else if (reload_differences(m->config, read, &text) == 0) {
        log_info("%s says what is running; nothing to change", m->config_file);
    } else {
        for (char *save, *line = strtok_r((char *)buf_cstr(&text), "\n", &save); line;
             line = strtok_r(NULL, "\n", &save))
            log_warn("not applied: %s; restart segue (stop, serve) for it", line);
    }
    config_free(read);
    buf_fini(&text);
}

/* --- starting ----------------------------------------------------------------------------- */

/* Makes a folder and those above it. */
static int make_folder(const char *path, struct err *err)
{
    char *whole = str_dup(path);
    int result = 0;

    for (char *p = whole + 1; result == 0; p++) {
        char at = *p;

        if (at != '/' && at != '\0')
            continue;
        *p = '\0';
        if (mkdir(whole, 0700) != 0 && errno != EEXIST)
            result = err_set(err, 500, "cannot make the folder %s: %s", whole, strerror(errno));
        *p = at;
        if (!at)
            break;
    }
    free(whole);
    return result;
}

static int make_folder_of(const char *file, struct err *err)
{
    char *folder = str_dup(file), *slash = strrchr(folder, '/');
    int result = 0;

    if (slash && slash != folder) {
        *slash = '\0';
        result = make_folder(folder, err);
    }
    free(folder);
    return result;
}

/* The lock at once, or when a manager that is just ending (`segue stop && segue serve`) has. */
static int lock_patiently(int fd)
{
    enum { STEP_MS = 50, MOST_MS = 2000 };

    for (int waited = 0;; waited += STEP_MS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK || waited >= MOST_MS)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000}, NULL);
    }
}

/* One manager for each state folder. */
static int take_lock(struct manager *m, struct err *err)
{
    char *path = str_fmt("%s/lock", m->config->state);
    char pid[32] = "";
    int result = 0;

    m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (m->lock_fd < 0) {
        result = err_set(err, 500, "cannot open %s: %s", path, strerror(errno));
    } else if (lock_patiently(m->lock_fd) != 0) {
        ssize_t n = errno == EWOULDBLOCK ? pread(m->lock_fd, pid, sizeof(pid) - 1, 0) : -1;
        pid[strcspn(pid, "\n")] = '\0';
        result = n < 0 ? err_set(err, 500, "cannot lock %s: %s", path, strerror(errno))
                       : err_set(err, 409,
                                 "another manager (pid %s) runs with the state folder %s; choose "
                                 "another `state`, or stop it",
                                 *pid ? pid : "unknown", m->config->state);
    } else {
        int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        if (ftruncate(m->lock_fd, 0) != 0 || pwrite(m->lock_fd, pid, (size_t)n, 0) != n)
            result = err_set(err, 500, "cannot write %s: %s", path, strerror(errno));
    }
    free(path);
    return result;
}

/* Each connection of the gateway needs two descriptors; whoever is started by us inherits it. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn("cannot raise the number of descriptors to %llu: %s",
                 (unsigned long long)limit.rlim_max, strerror(errno));
}

static int load_models(struct manager *m, struct err *err)
{
    m->models = mem_zero((m->config->nmodels + 1) * sizeof(*m->models));
    for (size_t i = 0; i < m->config->nmodels; i++) {
        char *notice;

        m->models[m->nmodels++] = model_new(&m->config->models[i]);
        if (model_load(m->models[i], m->store, &notice, err) != 0)
            return -1;
        if (notice)
            log_warn("%s", notice);
        free(notice);
        m->models[i]->epoch = m->epoch;
    }
    return 0;
}

static int open_store(struct manager *m, struct err *err)
{
    char *notice = NULL;

    m->store = store_open(m->config->state, &notice, err);
    if (notice)
        log_warn("%s", notice);
    free(notice);
    if (!m->store || store_epoch(m->store, &m->epoch, err) != 0 || apikeys_load(m, err) != 0)
        return -1;

    struct err none;
    json_t *last = store_receipt_get(m->store, NULL, 0, &none);
    m->receipts = json_integer_value(json_object_get(last, "number"));
    json_decref(last);
    return 0;
}

/* The engines table, before (which spares were kept) and after adoption (which engines live). */
static struct version *version_of_engine(const struct manager *m, const char *replica)
{
    struct span whole = span_str(replica);
    size_t at = span_index(whole, '@'), hash = span_index(whole, '#');
    struct version *v = NULL;

    if (at >= hash || hash == whole.n)
        return NULL;
    char *model = span_dup(span_of(whole.p, at));
    char *version = span_dup(span_of(whole.p + at + 1, hash - at - 1));
    struct model *known = manager_model(m, model);
    if (known)
        v = model_version(known, version);
    free(model);
    free(version);
    return v;
}

static void on_kept_engine(const struct store_engine *e, void *arg)
{
    const struct version *v = version_of_engine(arg, e->replica);

    if (v && v == v->model->previous)
        v->model->keep_spare = v->model->config->update.spare_running;
}

static void on_live_engine(const struct store_engine *e, void *arg)
{
    struct version *v = version_of_engine(arg, e->replica);

    if (v)
        v->found = true;
}

static int start_fleet(struct manager *m, struct err *err)
{
    m->fleet = fleet_new(&m->loop, m->config, m->store, fleetwork_events(), m);
    if (store_engines(m->store, on_kept_engine, m, err) != 0 || fleet_adopt(m->fleet, err) != 0 ||
        store_engines(m->store, on_live_engine, m, err) != 0)
        return -1;
    fleetwork_adopt(m);
    fleet_adopt_end(m->fleet);
    return 0;
}

static void on_gateway_up(void *arg)
{
    manager_soon(arg);
}

static void on_gateway_down(const char *reason, void *arg)
{
    manager_soon(arg);
}

static int start_gateway(struct manager *m, struct err *err)
{
    static const struct gateway_link_events events = {on_gateway_up, on_gateway_down};

    m->link = gateway_link_new(&m->loop, m->config, &events, m, err);
    if (!m->link)
        return -1;
    json_t *gateway = gateway_link_json(m->link);
    uint64_t epoch = (uint64_t)json_integer_value(json_object_get(gateway, "epoch"));
    m->gateway_adopted = json_integer_value(json_object_get(gateway, "pid")) > 0;
    if (epoch > m->epoch)
        m->epoch = epoch;
    json_decref(gateway);
    return open_access_log(m, err) != 0 || certificate_start(m, err) != 0 ? -1 : 0;
}

/* Nothing that was asked for can be started, and nothing ran before: a first start with a
 * mistake in it. Later we stay, so that there is somebody to ask for a switch, a rollback or a
 * deploy when the file of the version that serves is gone. */
static int something_starts(const struct manager *m, struct err *err)
{
    for (size_t i = 0; i < m->nmodels; i++)
        if (m->models[i]->serving->nmembers || m->models[i]->moved)
            return 0;
    if (m->gateway_adopted)
        return 0;
    return err_set(err, 500, "no version that should serve can be started; ending");
}

static void make_handles(struct manager *m)
{
    ALWAYS(uv_loop_init(&m->loop) == 0);
    uv_timer_init(&m->loop, &m->soon);
    uv_timer_init(&m->loop, &m->tick);
    uv_timer_init(&m->loop, &m->rest);
    uv_timer_init(&m->loop, &m->again);
    uv_signal_init(&m->loop, &m->on_term);
    uv_signal_init(&m->loop, &m->on_int);
    uv_signal_init(&m->loop, &m->on_hup);
    m->soon.data = m->tick.data = m->rest.data = m->again.data = m;
    m->on_term.data = m->on_int.data = m->on_hup.data = m;
    uv_signal_start(&m->on_term, on_stop_signal, SIGTERM);
    uv_signal_start(&m->on_int, on_stop_signal, SIGINT);
    uv_signal_start(&m->on_hup, on_reload_signal, SIGHUP);
}

static const struct admin_backend backend = {
    .health = views_health,
    .status = views_status,
    .versions = views_versions,
    .receipt = views_receipt,
    .rollouts = views_rollouts,
    .logs = views_logs,
    .counters = metrics_counters,
    .metrics = metrics_text,
    .deploy = updates_deploy,
    .switch_to = updates_switch,
    .rollback = updates_rollback,
    .stop = on_stop_verb,
    .keys = apikeys_list,
    .key_add = apikeys_add,
    .key_revoke = apikeys_revoke,
};

static int start_parts(struct manager *m, struct err *err)
{
    m->admin = admin_new(&m->loop, &backend, m);
    if (make_folder_of(m->config->admin_socket, err) != 0 ||
        admin_listen(m->admin, m->config->admin_socket, err) != 0 || metrics_start(m, err) != 0 ||
        start_gateway(m, err) != 0)
        return -1;
    if (start_fleet(m, err) != 0 || recover_rollouts(m, err) != 0)
        return -1;
    if (something_starts(m, err) != 0)
        return -1;
    set_state(m, MANAGER_RUNNING);
    fleetwork_publish(m);
    manager_soon(m);
    return 0;
}

/* A part could not be made: those that were are taken down; what ran before us runs on. */
static void give_up(struct manager *m)
{
    m->exit_code = 1;
    m->end_engines = !m->gateway_adopted;
    if (!m->link) {
        end_fleet(m);
        return;
    }
    set_state(m, MANAGER_DRAINING);
    certificate_stop(m);
    gateway_link_close(m->link, !m->gateway_adopted, 0, on_link_closed, m);
}

static void run(struct manager *m)
{
    struct err err;

    make_handles(m);
    if (start_parts(m, &err) != 0) {
        log_error("%s", err.text);
        give_up(m);
    }
    uv_run(&m->loop, UV_RUN_DEFAULT);
    ALWAYS(m->state == MANAGER_CLOSED);
    ALWAYS(uv_loop_close(&m->loop) == 0);
}

static void free_parts(struct manager *m)
{
    LIST_FOR_EACH_SAFE(it, &m->ended)
    {
        struct ended *e = CONTAINER_OF(it, struct ended, link);

        list_remove(it);
        rollout_free(e->rollout);
        free(e);
    }
    for (size_t i = 0; i < m->nmodels; i++)
        model_free(m->models[i]);
    apikeys_free(m);
    free(m->models);
    account_free(m->account);
    if (m->store)
        store_close(m->store);
    config_free(m->config);
    if (m->lock_fd >= 0)
        close(m->lock_fd);
    free(m->config_file);
}

static int prepare(struct manager *m, struct err *err)
{
    if (make_folder(m->config->state, err) != 0 || take_lock(m, err) != 0)
        return -1;
    raise_descriptors();
    return open_store(m, err) != 0 || load_models(m, err) != 0 ? -1 : 0;
}

static int load_config(struct manager *m)
{
    struct buf text = {0};

    m->config = config_load(m->config_file, &text);
    if (buf_pending(&text))
        fputs(buf_cstr(&text), stderr);
    buf_fini(&text);
    return m->config ? 0 : -1;
}

/* `serve [-c FILE]`; NULL: the command line is wrong, and that was said. */
static const char *config_of(int argc, char **argv)
{
    const char *file = "segue.yaml";
    bool served = false;

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];

        if (!served && strcmp(arg, "serve") == 0) {
            served = true;
        } else if ((strcmp(arg, "-c") == 0 || strcmp(arg, "--config") == 0) && i + 1 < argc) {
            file = argv[++i];
        } else if (strncmp(arg, "--config=", 9) == 0 && arg[9]) {
            file = arg + 9;
        } else {
            fprintf(stderr, "segue serve: '%s' is not understood; usage: segue serve [-c FILE]\n",
                    arg);
            return NULL;
        }
    }
    return file;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

int manager_main(int argc, char **argv)
{
    struct manager m = {.lock_fd = -1, .since_ms = clock_wall_ms()};
    struct err err;

    if (wants_help(argc, argv))
        return cli_main(argc, argv);
    const char *file = config_of(argc, argv);
    if (!file)
        return CLI_USAGE;
    list_init(&m.ended);
    list_init(&m.checks);
    list_init(&m.key_waiters);
    m.account = account_new();
    m.config_file = str_dup(file);
    log_start("manager", LOG_INFO);
    if (load_config(&m) != 0) {
        free_parts(&m);
        return CLI_USAGE;
    }
    log_start("manager", (enum log_level)log_level_by_name(m.config->log_level));
    signal(SIGPIPE, SIG_IGN);
    if (prepare(&m, &err) == 0) {
        run(&m);
    } else {
        log_error("%s", err.text);
        m.exit_code = 1;
    }
    free_parts(&m);
    return m.exit_code;
}
