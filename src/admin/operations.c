/*
 * operations - the list, newest last, and the events of each as they were sent.
 */
#include "admin/operations.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "rollout/text.h"

enum {
    OPERATIONS_KEPT = 100,       /* ended ones */
    STORY_MAX = 64 * 1024,       /* bytes of progress that a late follower is told */
    FOLLOWER_PENDING_MAX = 65536 /* unread bytes before a follower is cut */
};

struct operation {
    struct list link; /* in operations.all */
    int64_t number;
    char *kind, *model, *version; /* owned */
    char *state, *detail;         /* owned; "" at first */
    char *error;                  /* owned; NULL if none */
    bool ended;
    int64_t began_ms, ended_ms;
    json_t *receipt;       /* owned; may be NULL */
    struct buf story;      /* SSE events so far */
    struct list followers; /* of struct follower */
};

struct follower {
    struct list link;
    struct http_call *call; /* borrowed; valid until on_gone or our finish */
};

struct operations {
    struct list all; /* of struct operation, oldest first */
    size_t ended;
};

struct operations *operations_new(void)
{
    struct operations *o = NEW(struct operations);

    list_init(&o->all);
    return o;
}

static struct operation *find(const struct operations *o, int64_t number)
{
    LIST_FOR_EACH(it, &o->all)
    {
        struct operation *op = CONTAINER_OF(it, struct operation, link);

        if (op->number == number)
            return op;
    }
    return NULL;
}

static struct operation *find_running(const struct operations *o, int64_t number)
{
    struct operation *op = find(o, number);

    return op && !op->ended ? op : NULL;
}

static void follower_free(struct follower *f)
{
    list_remove(&f->link);
    free(f);
}

static void operation_free(struct operation *op)
{
    LIST_FOR_EACH_SAFE(it, &op->followers)
    {
        struct follower *f = CONTAINER_OF(it, struct follower, link);
        struct http_call *call = f->call;

        follower_free(f);
        http_call_on_gone(call, NULL, NULL);
        http_call_cut(call);
    }
    list_remove(&op->link);
    free(op->kind);
    free(op->model);
    free(op->version);
    free(op->state);
    free(op->detail);
    free(op->error);
    json_decref(op->receipt);
    buf_fini(&op->story);
    free(op);
}

void operations_free(struct operations *o)
{
    if (!o)
        return;
    LIST_FOR_EACH_SAFE(it, &o->all)
    operation_free(CONTAINER_OF(it, struct operation, link));
    free(o);
}

/* Drops the oldest that has ended when there are too many. */
static void forget(struct operations *o)
{
    LIST_FOR_EACH_SAFE(it, &o->all)
    {
        struct operation *op = CONTAINER_OF(it, struct operation, link);

        if (o->ended <= OPERATIONS_KEPT)
            return;
        if (op->ended) {
            operation_free(op);
            o->ended--;
        }
    }
}

void operation_begin(struct operations *o, int64_t number, const char *kind, const char *model,
                     const char *version)
{
    struct operation *op = NEW(struct operation);

    ALWAYS(!find(o, number));
    op->number = number;
    op->kind = str_dup(kind);
    op->model = str_dup(model);
    op->version = str_dup(version);
    op->state = str_dup("");
    op->detail = str_dup("");
    op->began_ms = clock_wall_ms();
    list_init(&op->followers);
    list_append(&o->all, &op->link);
}

/* One event to all followers; `data` is stolen. */
static void tell(struct operation *op, const char *event, json_t *data)
{
    struct buf text = {0};
    char *json = json_dumps(data, JSON_COMPACT);

    ALWAYS(json);
    buf_addf(&text, "event: %s\ndata: %s\n\n", event, json);
    free(json);
    json_decref(data);
    if (buf_pending(&op->story) < STORY_MAX || op->ended)
        buf_add_span(&op->story, buf_span(&text));
    LIST_FOR_EACH_SAFE(it, &op->followers)
    {
        struct follower *f = CONTAINER_OF(it, struct follower, link);
        struct http_call *call = f->call;

        if (http_call_pending(call) > FOLLOWER_PENDING_MAX) {
            follower_free(f);
            http_call_on_gone(call, NULL, NULL);
            http_call_cut(call);
            continue;
        }
        http_call_write(call, buf_span(&text));
    }
    buf_fini(&text);
}

static bool replace(char **text, const char *by)
{
    if (strcmp(*text, by) == 0)
        return false;
    free(*text);
    *text = str_dup(by);
    return true;
}

void operation_progress(struct operations *o, int64_t number, const char *state, const char *detail)
{
    struct operation *op = find_running(o, number);

    if (!op)
        return;
    bool changed = replace(&op->state, state);
    changed |= replace(&op->detail, detail);
    if (changed)
        tell(op, "progress", json_pack("{s:s, s:o}", "state", state, "detail", text_json(detail)));
}

static void finish_followers(struct operation *op)
{
    LIST_FOR_EACH_SAFE(it, &op->followers)
    {
        struct follower *f = CONTAINER_OF(it, struct follower, link);
        struct http_call *call = f->call;

        follower_free(f);
        http_call_on_gone(call, NULL, NULL);
        http_call_finish(call);
    }
}

void operation_end(struct operations *o, int64_t number, const char *state, const char *error,
                   json_t *receipt)
{
    struct operation *op = find_running(o, number);

    if (!op)
        return;
    operation_progress(o, number, state, error ? error : "");
    op->ended = true;
    op->ended_ms = clock_wall_ms();
    op->error = str_dup(error);
    op->receipt = json_incref(receipt);
    tell(op, "end",
         json_pack("{s:b, s:s, s:o, s:O?}", "ok", error == NULL, "state", state, "error",
                   text_json(error), "receipt", receipt));
    finish_followers(op);
    o->ended++;
    forget(o);
}

void operations_end_all(struct operations *o, const char *error)
{
    LIST_FOR_EACH_SAFE(it, &o->all)
    {
        struct operation *op = CONTAINER_OF(it, struct operation, link);

        if (!op->ended) {
            char *state = str_dup(op->state);

            operation_end(o, op->number, state, error, NULL);
            free(state);
        }
    }
}

static json_t *time_or_null(int64_t wall_ms)
{
    char text[CLOCK_TEXT_MAX];

    if (!wall_ms)
        return json_null();
    clock_text(wall_ms, text);
    return json_string(text);
}

json_t *operation_json(const struct operations *o, int64_t number)
{
    const struct operation *op = find(o, number);

    if (!op)
        return NULL;
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:O?}", "operation",
                     (json_int_t)number, "kind", op->kind, "model", op->model, "version",
                     op->version, "state", op->state, "detail", text_json(op->detail), "began",
                     time_or_null(op->began_ms), "ended", time_or_null(op->ended_ms), "ok",
                     op->ended ? json_boolean(!op->error) : json_null(), "error",
                     text_json(op->error), "receipt", op->receipt);
}

static void on_follower_gone(struct http_call *call, void *arg)
{
    follower_free(arg);
}

bool operation_follow(struct operations *o, int64_t number, struct http_call *call)
{
    struct operation *op = find(o, number);

    if (!op)
        return false;
    http_call_start(call, 200, "text/event-stream", "Cache-Control: no-store\r\n");
    if (buf_pending(&op->story))
        http_call_write(call, buf_span(&op->story));
    if (op->ended) {
        http_call_finish(call);
        return true;
    }
    struct follower *f = NEW(struct follower);
    f->call = call;
    list_append(&op->followers, &f->link);
    http_call_on_gone(call, on_follower_gone, f);
    return true;
}
