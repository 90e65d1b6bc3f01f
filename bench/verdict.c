/* verdict - see verdict.h. */
#include "verdict.h"

const char *cause_name(enum cause c)
{
    static const char *const names[] = {
#define X(id, name, note) name,
        CAUSES(X)
#undef X
    };
    return names[c];
}

const char *cause_note(enum cause c)
{
    static const char *const notes[] = {
#define X(id, name, note) note,
        CAUSES(X)
#undef X
    };
    return notes[c];
}

static void wrong(struct verdict *v, enum cause cause)
{
    if (v->cause == CAUSE_NONE)
        v->cause = cause;
}

void verdict_begin(struct verdict *v, bool stream, bool keep_text)
{
    v->cause = CAUSE_NONE;
    v->stream = stream;
    v->events = false;
    v->keep_text = keep_text;
    v->done = v->finish = v->open_event = false;
    v->tokens = 0;
    v->model[0] = 0;
    buf_clear(&v->held);
    buf_clear(&v->text);
}

void verdict_fini(struct verdict *v)
{
    buf_fini(&v->held);
    buf_fini(&v->text);
}

void verdict_head(struct verdict *v, const struct reply *r)
{
    if (r->status == 503)
        wrong(v, CAUSE_HTTP_503);
    else if (r->status >= 500)
        wrong(v, CAUSE_HTTP_5XX);
    else if (r->status != 200)
        wrong(v, CAUSE_HTTP_OTHER);
    v->events = r->status == 200 && v->stream;
    if (v->events && !r->event_stream)
        wrong(v, CAUSE_NOT_EVENTS);
}

/* One JSON object: the whole body or the data of one event. */
static void see_object(struct verdict *v, struct span json)
{
    struct facts f;

    if (facts_recall(v->memory, json, &f) < 0) {
        wrong(v, CAUSE_NOT_JSON);
        return;
    }
    if (f.error)
        wrong(v, CAUSE_ERROR_EVENT);
    if (f.finish.p)
        v->finish = true;
    if (v->keep_text)
        facts_unescape(&v->text, f.text);
    if (!f.model.p || f.model.n >= sizeof(v->model))
        return;
    if (!v->model[0])
        memcpy(v->model, f.model.p, f.model.n), v->model[f.model.n] = 0;
    else if (!span_eq_str(f.model, v->model))
        wrong(v, CAUSE_MIXED_VERSIONS);
}

static void see_data(struct verdict *v, struct span data)
{
    if (v->done) {
        wrong(v, CAUSE_NOT_EVENTS);
    } else if (span_eq(data, SPAN_LIT("[DONE]"))) {
        v->done = true;
    } else {
        v->tokens++;
        see_object(v, data);
    }
}

/* One line of an event stream without its line end. Comments and the fields that
 * SSE knows are fine; every data line must be an object of its own. */
static void see_line(struct verdict *v, struct span line)
{
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (line.n == 0) {
        v->open_event = false;
        return;
    }
    if (line.p[0] == ':')
        return;
    if (v->open_event && span_starts(line, SPAN_LIT("data:")))
        wrong(v, CAUSE_NOT_EVENTS);
    if (span_starts(line, SPAN_LIT("data:"))) {
        v->open_event = true;
        see_data(v, span_trim(span_of(line.p + 5, line.n - 5)));
    } else if (!span_starts(line, SPAN_LIT("event:")) && !span_starts(line, SPAN_LIT("id:")) &&
               !span_starts(line, SPAN_LIT("retry:"))) {
        wrong(v, CAUSE_NOT_EVENTS);
    }
}

static void see_lines(struct verdict *v, struct span s)
{
    while (s.n > 0) {
        const char *lf = memchr(s.p, '\n', s.n);
        if (!lf) {
            buf_add_span(&v->held, s);
            return;
        }
        size_t n = (size_t)(lf - s.p);
        if (buf_pending(&v->held)) {
            buf_add(&v->held, s.p, n);
            see_line(v, buf_span(&v->held));
            buf_clear(&v->held);
        } else {
            see_line(v, span_of(s.p, n));
        }
        s = span_of(s.p + n + 1, s.n - n - 1);
    }
}

void verdict_body(struct verdict *v, struct span body)
{
    if (v->events)
        see_lines(v, body);
    else
        buf_add_span(&v->held, body);
}

const char *version_short(const char *name)
{
    const char *at = strrchr(name, '@');
    return at ? at + 1 : name;
}

static void check_versions(struct verdict *v, const struct reply *r)
{
    if (r->versions != 1)
        wrong(v, CAUSE_NO_VERSION);
    else if (v->model[0] && strcmp(version_short(v->model), version_short(r->version)) != 0)
        wrong(v, CAUSE_MIXED_VERSIONS);
}

enum cause verdict_end(struct verdict *v, const struct reply *r, bool check_version)
{
    if (v->cause != CAUSE_NONE)
        return v->cause;

    if (v->events) {
        if (buf_pending(&v->held) || v->open_event)
            wrong(v, CAUSE_NOT_EVENTS);
        if (!v->done)
            wrong(v, CAUSE_NO_DONE);
    } else {
        see_object(v, buf_span(&v->held));
    }
    if (!v->finish)
        wrong(v, CAUSE_NO_FINISH);
    if (r->versions > 1)
        wrong(v, CAUSE_NO_VERSION);
    if (check_version)
        check_versions(v, r);
    return v->cause;
}
