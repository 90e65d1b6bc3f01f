/*
 * segue-load - puts load on an OpenAI-shaped server and verifies every answer.
 *
 * The main thread reads the options, reports, follows the switch log and adds
 * up; the workers (worker.c) do the requests.  Everything goes to standard
 * output as JSON: with --report one line for each interval, with --json one
 * object at the end (else a few lines for people).
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker.h"

enum { THREADS_MAX = 64, SAMPLES_SHOWN = 8 };

/* Answers are held against the switch log when they are this old. */
#define JUDGE_AFTER_NS UINT64_C(3000000000)

/* clang-format off */
/*    id              option             argument   help */
#define OPTIONS(X) \
    X(CONNECTIONS,   "connections",      "N",      "connections that send requests (default 16)") \
    X(THREADS,       "threads",          "N",      "threads (default 1)") \
    X(RATE,          "rate",             "R",      "requests a second, latency from the intended start (default: closed loop)") \
    X(DURATION,      "duration",         "SECONDS", "stop starting requests after this time (default 10, or none with --requests)") \
    X(REQUESTS,      "requests",         "N",      "stop after so many requests") \
    X(STREAMS,       "streams",          "SHARE",  "share of streamed requests, 0 to 1 (default 0)") \
    X(MODEL,         "model",            "NAME",   "the model asked for (default hy-mt)") \
    X(PATH,          "path",             "PATH",   "target (default /v1/chat/completions)") \
    X(HEADER,        "header",           "LINE",   "a further header line; may be repeated") \
    X(BODY_BYTES,    "body-bytes",       "N",      "a fixed chat body of N bytes (default 300)") \
    X(SENTENCES,     "sentences",        "FILE",   "HY-MT's prompt with the first column of this TSV, in turn") \
    X(BODY,          "body",             "FILE",   "a body with @model@, @stream@ and @sentence@ to be replaced") \
    X(MAX_TOKENS,    "max-tokens",       "N",      "max_tokens (default: not sent)") \
    X(TEMPERATURE,   "temperature",      "T",      "temperature (default: not sent)") \
    X(CHECK_VERSION, "check-version",    NULL,     "each answer must name one version, and its \"model\" must be that") \
    X(EXPECT,        "expect",           "FILE",   "lines VERSION<TAB>SENTENCE<TAB>TEXT that answers must equal") \
    X(SWITCH_LOG,    "switch-log",       "FILE",   "lines ACK_NS VERSION [BEGIN_NS], file, FIFO or -") \
    X(TIMEOUT,       "timeout",          "SECONDS", "for one answer (default 60)") \
    X(GRACE,         "grace",            "SECONDS", "at the end, for what is in flight (default 30)") \
    X(RECONNECT,     "raw-reconnect",    NULL,     "a new connection for each request") \
    X(IDLE,          "idle",             "N",      "N more connections: one request each, then held open") \
    X(REPORT,        "report",           "SECONDS", "print one JSON line for each interval") \
    X(JSON,          "json",             NULL,     "print one JSON object at the end") \
    X(HELP,          "help",             NULL,     "this text")
/* clang-format on */

enum option_id {
#define X(id, name, argument, help) OPT_##id,
    OPTIONS(X)
#undef X
        NOPTIONS
};

struct load {
    struct run run;
    struct script_options script;
    const char *expect, *switch_log; /* borrowed from argv */
    double duration, report;         /* seconds; 0: none */
    bool json;
    struct buf headers;

    struct worker *workers[THREADS_MAX];
    struct switches *switches; /* NULL without a log */
    struct record *records;    /* owned; not yet judged */
    size_t nrecords;
    uint64_t on_old; /* answers that contradict the log */
    uint64_t total_ok, total_failed;
    struct buf series;  /* JSON objects of the intervals */
    struct buf samples; /* JSON strings of the first failures */
    unsigned nsamples;
};

static void usage(FILE *out)
{
    static const char *const rows[][3] = {
#define X(id, name, argument, help) {name, argument, help},
        OPTIONS(X)
#undef X
    };

    fputs("usage: segue-load [OPTION...] http://HOST:PORT | unix:PATH\n", out);
    for (int i = 0; i < NOPTIONS; i++) {
        char left[40];
        snprintf(left, sizeof(left), "--%s %s", rows[i][0], rows[i][1] ? rows[i][1] : "");
        fprintf(out, "  %-24s %s\n", left, rows[i][2]);
    }
}

_Noreturn static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "segue-load: %s: %s\n", what, value);
    exit(2);
}

static double number(const char *option, const char *text, double least, double most)
{
    char *end, what[128];
    double v = strtod(text, &end);

    if (*text && !*end && v >= least && v <= most)
        return v;
    snprintf(what, sizeof(what), "--%s wants a number from %g to %g", option, least, most);
    refuse(what, text);
}

static void take_option(struct load *l, enum option_id id, const char *name, const char *arg)
{
    struct run *run = &l->run;

    switch (id) {
    case OPT_CONNECTIONS:
        run->connections = (unsigned)number(name, arg, 0, 1e6);
        break;
    case OPT_THREADS:
        run->threads = (unsigned)number(name, arg, 1, THREADS_MAX);
        break;
    case OPT_RATE:
        run->rate = number(name, arg, 0.001, 1e8);
        break;
    case OPT_DURATION:
        l->duration = number(name, arg, 0.001, 1e7);
        break;
    case OPT_REQUESTS:
        run->requests = (uint64_t)number(name, arg, 1, 1e15);
        break;
    case OPT_STREAMS:
        run->streams = number(name, arg, 0, 1);
        break;
    case OPT_MODEL:
        l->script.model = arg;
        break;
    case OPT_PATH:
        l->script.path = arg;
        break;
    case OPT_HEADER:
        buf_addf(&l->headers, "%s\r\n", arg);
        break;
    case OPT_BODY_BYTES:
        l->script.body_bytes = (unsigned)number(name, arg, 0, 1e9);
        break;
    case OPT_SENTENCES:
        l->script.sentences = arg;
        break;
    case OPT_BODY:
        l->script.template = arg;
        break;
    case OPT_MAX_TOKENS:
        l->script.max_tokens = (unsigned)number(name, arg, 1, 1e6);
        break;
    case OPT_TEMPERATURE:
        l->script.temperature = number(name, arg, 0, 10);
        break;
    case OPT_CHECK_VERSION:
        run->check_version = true;
        break;
    case OPT_EXPECT:
        l->expect = arg;
        break;
    case OPT_SWITCH_LOG:
        l->switch_log = arg;
        break;
    case OPT_TIMEOUT:
        run->timeout_ns = (uint64_t)(number(name, arg, 0.001, 1e6) * 1e9);
        break;
    case OPT_GRACE:
        run->grace_ns = (uint64_t)(number(name, arg, 0, 1e6) * 1e9);
        break;
    case OPT_RECONNECT:
        run->reconnect = l->script.close = true;
        break;
    case OPT_IDLE:
        run->idle = (unsigned)number(name, arg, 0, 1e6);
        break;
    case OPT_REPORT:
        l->report = number(name, arg, 0.01, 1e6);
        break;
    case OPT_JSON:
        l->json = true;
        break;
    case OPT_HELP:
        usage(stdout);
        exit(0);
    case NOPTIONS:
        break;
    }
}

static void read_options(struct load *l, int argc, char **argv)
{
    static const struct option rows[] = {
#define X(id, name, argument, help) \
    {name, (argument) != NULL ? required_argument : no_argument, NULL, OPT_##id},
        OPTIONS(X)
#undef X
            {NULL, 0, NULL, 0}};
    struct err err;
    int id, row;

    while ((id = getopt_long(argc, argv, "", rows, &row)) != -1) {
        if (id == '?')
            exit(2);
        take_option(l, (enum option_id)id, rows[row].name, optarg);
    }
    if (optind + 1 != argc) {
        usage(stderr);
        exit(2);
    }
    if (address_parse(&l->run.address, argv[optind], &err) < 0)
        refuse("where to", err.text);
    if (l->duration == 0 && l->run.requests == 0)
        l->duration = 10;
}

static void prepare(struct load *l)
{
    struct run *run = &l->run;
    struct err err;
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    l->script.host = address_is_unix(&run->address) ? "localhost" : run->address.text;
    l->script.headers = buf_cstr(&l->headers);
    if (script_make(&run->script, &l->script, &err) < 0)
        refuse("requests", err.text);
    names_init(&run->names);
    if (l->expect && expect_read(&run->expect, l->expect, &run->script, &run->names, &err) < 0)
        refuse("--expect", err.text);
    run->keep_text = l->expect != NULL;
    run->keep_records = l->switch_log != NULL;
    if (l->switch_log && !(l->switches = switches_open(l->switch_log, &err)))
        refuse("--switch-log", err.text);
}

/* --- what goes on -------------------------------------------------------- */

/* Judges the records that ended before `before_ns`, keeps the others. */
static void judge_records(struct load *l, uint64_t before_ns)
{
    size_t kept = 0;

    if (!l->switches)
        return;
    switches_read(l->switches, &l->run.names);
    for (unsigned i = 0; i < l->run.threads; i++) {
        size_t n;
        struct record *more = worker_take_records(l->workers[i], &n);
        if (n) {
            l->records = mem_grow(l->records, (l->nrecords + n) * sizeof(*more));
            memcpy(l->records + l->nrecords, more, n * sizeof(*more));
            l->nrecords += n;
        }
        free(more);
    }
    for (size_t i = 0; i < l->nrecords; i++) {
        if (l->records[i].ended_ns >= before_ns)
            l->records[kept++] = l->records[i];
        else
            l->on_old += switches_contradicts(l->switches, &l->records[i]);
    }
    l->nrecords = kept;
}

static void add_versions(struct buf *out, struct names *names, const uint64_t *count)
{
    int n = atomic_load(&names->count);
    const char *comma = "";

    buf_add_char(out, '{');
    for (int i = 0; i < n; i++) {
        if (!count[i])
            continue;
        buf_addf(out, "%s\"", comma);
        buf_add_json(out, span_str(names->name[i]));
        buf_addf(out, "\":%llu", (unsigned long long)count[i]);
        comma = ",";
    }
    buf_add_char(out, '}');
}

/* One interval has passed: into the series, and onto standard output if asked for. */
static void report(struct load *l, uint64_t from_ns, uint64_t to_ns)
{
    struct interval *all = NEW(struct interval);
    uint64_t in_flight = 0, idle_open = 0;
    struct buf line = {0};

    for (unsigned i = 0; i < l->run.threads; i++)
        worker_collect(l->workers[i], all, &in_flight, &idle_open);
    l->total_ok += all->ok;
    l->total_failed += all->failed;

    double seconds = (double)(to_ns - from_ns) / 1e9;
    buf_addf(&line, "{\"t\":%.3f,\"seconds\":%.3f,\"rps\":%.1f,\"ok\":%llu,\"failed\":%llu",
             (double)(to_ns - l->run.start_ns) / 1e9, seconds, (double)all->ok / seconds,
             (unsigned long long)all->ok, (unsigned long long)all->failed);
    buf_addf(&line, ",\"tokens\":%llu,\"in_flight\":%llu,\"idle_open\":%llu,\"p50_us\":%.1f",
             (unsigned long long)all->tokens, (unsigned long long)in_flight,
             (unsigned long long)idle_open, (double)histogram_quantile(&all->latency, 0.5) / 1e3);
    buf_addf(&line, ",\"p99_us\":%.1f,\"max_us\":%.1f,\"versions\":",
             (double)histogram_quantile(&all->latency, 0.99) / 1e3, (double)all->latency.max / 1e3);
    add_versions(&line, &l->run.names, all->version);
    buf_addf(&line, ",\"total_ok\":%llu,\"total_failed\":%llu,\"on_old_after_switch\":%llu}",
             (unsigned long long)l->total_ok, (unsigned long long)l->total_failed,
             (unsigned long long)l->on_old);
    /* The rest after the last whole interval is told only if it holds something. */
    if (l->report > 0 && (all->ok || all->failed || to_ns - from_ns > 50000000)) {
        puts(buf_cstr(&line));
        fflush(stdout);
    }
    if (buf_pending(&l->series))
        buf_add_char(&l->series, ',');
    buf_add_span(&l->series, buf_span(&line));
    buf_fini(&line);
    free(all);
}

static bool all_ended(const struct load *l)
{
    for (unsigned i = 0; i < l->run.threads; i++)
        if (!worker_ended(l->workers[i]))
            return false;
    return true;
}

/* Until all workers have ended: stops them at the end of the time or at a signal. */
static void follow(struct load *l, const sigset_t *signals)
{
    uint64_t interval = (uint64_t)((l->report > 0 ? l->report : 1) * 1e9);
    uint64_t last = l->run.start_ns, due = last + interval;
    uint64_t end = l->duration > 0 ? l->run.start_ns + (uint64_t)(l->duration * 1e9) : UINT64_MAX;

    while (!all_ended(l)) {
        uint64_t now = clock_ns(), until = due < end ? due : end;
        uint64_t wait = until > now ? until - now : 0;
        if (wait > 20000000)
            wait = 20000000;
        struct timespec patience = {.tv_nsec = (long)wait};
        if (sigtimedwait(signals, NULL, &patience) > 0)
            end = 0;
        now = clock_ns();
        if (now >= end) {
            atomic_store(&l->run.stop, true);
            end = UINT64_MAX;
        }
        if (now >= due) {
            judge_records(l, now - JUDGE_AFTER_NS);
            report(l, last, now);
            last = now;
            due += interval;
        }
    }
    report(l, last, clock_ns());
    judge_records(l, UINT64_MAX);
}

/* --- the end ------------------------------------------------------------- */

static void keep_sample(void *arg, const char *text)
{
    struct load *l = arg;

    if (l->nsamples++ >= SAMPLES_SHOWN)
        return;
    buf_add_str(&l->samples, l->nsamples > 1 ? ",\"" : "\"");
    buf_add_json(&l->samples, span_str(text));
    buf_add_char(&l->samples, '"');
}

static uint64_t failed_of(const struct tally *t)
{
    uint64_t n = 0;
    for (int i = CAUSE_NONE + 1; i < NCAUSES; i++)
        n += t->cause[i];
    return n;
}

static void add_count(struct buf *out, const char *name, uint64_t v)
{
    buf_addf(out, "\"%s\":%llu,", name, (unsigned long long)v);
}

static void add_histogram(struct buf *out, const char *name, const struct histogram *h)
{
    buf_addf(out, "\"%s\":", name);
    histogram_json(h, out);
    buf_add_char(out, ',');
}

static void add_name(struct buf *out, const char *key, struct names *names, int index)
{
    buf_addf(out, "\"%s\":", key);
    if (index < 0) {
        buf_add_str(out, "null,");
        return;
    }
    buf_add_char(out, '"');
    buf_add_json(out, span_str(names->name[index]));
    buf_add_str(out, "\",");
}

static void add_causes(struct buf *out, const struct tally *t)
{
    buf_add_str(out, "\"causes\":{");
    for (int i = CAUSE_NONE + 1; i < NCAUSES; i++)
        buf_addf(out, "%s\"%s\":%llu", i > 1 ? "," : "", cause_name((enum cause)i),
                 (unsigned long long)t->cause[i]);
    buf_add_str(out, "},\"status\":{");
    const char *comma = "";
    for (int i = 0; i < TALLY_STATUSES; i++) {
        if (!t->status[i])
            continue;
        buf_addf(out, "%s\"%d\":%llu", comma, i, (unsigned long long)t->status[i]);
        comma = ",";
    }
    buf_add_str(out, "},");
}

static void add_times(struct buf *out, const struct tally *t)
{
    struct histogram *all = NEW(struct histogram);

    histogram_merge(all, &t->plain);
    histogram_merge(all, &t->streams);
    add_histogram(out, "latency_us", all);
    add_histogram(out, "plain_us", &t->plain);
    add_histogram(out, "streams_us", &t->streams);
    add_histogram(out, "first_byte_us", &t->first_byte);
    add_histogram(out, "first_token_us", &t->first_token);
    add_histogram(out, "token_gap_us", &t->token_gap);
    free(all);
}

static double own_cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void print_json(struct load *l, const struct tally *t, uint64_t started, double seconds)
{
    struct buf out = {0};
    uint64_t ok = t->cause[CAUSE_NONE];

    buf_addf(&out, "{\"to\":\"%s\",\"seconds\":%.3f,", l->run.address.text, seconds);
    buf_addf(&out, "\"rps\":%.1f,\"tokens_per_second\":%.1f,\"own_cpu_us_per_request\":%.2f,",
             (double)ok / seconds, (double)t->tokens / seconds, ok ? own_cpu_us() / (double)ok : 0);
    add_count(&out, "requests", started);
    add_count(&out, "ok", ok);
    add_count(&out, "failed", failed_of(t));
    add_count(&out, "truncated", t->cause[CAUSE_TRUNCATED]);
    add_count(&out, "plain_ok", t->plain_ok);
    add_count(&out, "streams_ok", t->streams_ok);
    add_count(&out, "tokens", t->tokens);
    add_causes(&out, t);
    buf_add_str(&out, "\"versions\":");
    add_versions(&out, &l->run.names, t->version);
    buf_add_char(&out, ',');
    add_count(&out, "unversioned", t->unversioned);
    add_name(&out, "first_version", &l->run.names, t->first_version);
    add_name(&out, "last_version", &l->run.names, t->last_version);
    add_count(&out, "switches", l->switches ? switches_count(l->switches) : 0);
    add_count(&out, "on_old_after_switch", l->on_old);
    add_count(&out, "connections_opened", t->connects);
    add_count(&out, "closed_between_requests", t->closed_idle);
    add_count(&out, "stray", t->stray);
    add_count(&out, "idle_failed", t->idle_failed);
    add_count(&out, "idle_lost", t->idle_lost);
    add_count(&out, "received_bytes", t->received_bytes);
    add_times(&out, t);
    buf_addf(&out, "\"failures\":[%s],", buf_cstr(&l->samples));
    buf_addf(&out, "\"series\":[%s]}", buf_cstr(&l->series));
    puts(buf_cstr(&out));
    buf_fini(&out);
}

static void print_text(struct load *l, const struct tally *t, uint64_t started, double seconds)
{
    uint64_t ok = t->cause[CAUSE_NONE];
    struct buf out = {0};

    printf("%llu requests in %.2f s: %llu right (%.0f/s), %llu failed, %llu of them truncated\n",
           (unsigned long long)started, seconds, (unsigned long long)ok, (double)ok / seconds,
           (unsigned long long)failed_of(t), (unsigned long long)t->cause[CAUSE_TRUNCATED]);
    for (int i = CAUSE_NONE + 1; i < NCAUSES; i++)
        if (t->cause[i])
            printf("  %-16s %8llu  %s\n", cause_name((enum cause)i),
                   (unsigned long long)t->cause[i], cause_note((enum cause)i));
    add_versions(&out, &l->run.names, t->version);
    printf("versions    %s\n", buf_cstr(&out));
    if (l->switches)
        printf("switches    %zu, %llu answers contradict them\n", switches_count(l->switches),
               (unsigned long long)l->on_old);
    const struct {
        const char *name;
        const struct histogram *h;
    } rows[] = {{"plain", &t->plain},
                {"streams", &t->streams},
                {"first byte", &t->first_byte},
                {"first token", &t->first_token},
                {"token gap", &t->token_gap}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (!rows[i].h->count)
            continue;
        buf_clear(&out);
        histogram_json(rows[i].h, &out);
        printf("%-11s %s us\n", rows[i].name, buf_cstr(&out));
    }
    if (buf_pending(&l->samples))
        printf("first failures: [%s]\n", buf_cstr(&l->samples));
    buf_fini(&out);
}

static void load_fini(struct load *l)
{
    script_fini(&l->run.script);
    expect_fini(&l->run.expect);
    switches_close(l->switches);
    free(l->records);
    buf_fini(&l->headers);
    buf_fini(&l->series);
    buf_fini(&l->samples);
    free(l);
}

/* Exit status: 0 when every answer was right and none contradicts the switch log. */
int main(int argc, char **argv)
{
    struct load *l = NEW(struct load);
    struct tally *all = NEW(struct tally);
    uint64_t started = 0;
    sigset_t signals;
    struct err err;

    log_start("load", LOG_INFO);
    l->run.threads = 1;
    l->run.connections = 16;
    l->run.timeout_ns = UINT64_C(60000000000);
    l->run.grace_ns = UINT64_C(30000000000);
    l->script = (struct script_options){
        .path = "/v1/chat/completions", .model = "hy-mt", .body_bytes = 300, .temperature = -1};
    read_options(l, argc, argv);
    prepare(l);

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    l->run.start_ns = clock_ns();
    for (unsigned i = 0; i < l->run.threads; i++)
        if (!(l->workers[i] = worker_start(&l->run, i, &err)))
            refuse("start", err.text);
    follow(l, &signals);
    tally_init(all);
    for (unsigned i = 0; i < l->run.threads; i++)
        worker_join(l->workers[i], all, &started, keep_sample, l);
    uint64_t end = all->last_ended_ns ? all->last_ended_ns : clock_ns();
    double seconds = (double)(end - l->run.start_ns) / 1e9;
    (l->json ? print_json : print_text)(l, all, started, seconds);

    bool right = failed_of(all) == 0 && l->on_old == 0 && all->idle_failed == 0;
    free(all);
    load_fini(l);
    return right ? 0 : 1;
}
