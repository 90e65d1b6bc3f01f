/*
 * receipt - see receipt.h for the readings.  The counts obey
 *
 *   requests = finished + failed + truncated + cancelled + in_flight_at_end
 *
 * because an exchange that was moved to another replica (retried) is begun
 * there once more and is taken off here.
 */
#include "rollout/receipt.h"

#include "base/clock.h"
#include "rollout/text.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *time_text(int64_t wall_ms)
{
    char text[CLOCK_TEXT_MAX];

    clock_text(wall_ms, text);
    return json_string(text);
}

uint64_t receipt_switch_us(const struct receipt *r)
{
    if (r->recovered)
        return r->recorded_switch_us;
    if (!r->switched || !r->switch_began_ns || r->acked_ns < r->switch_began_ns)
        return 0;
    return (r->acked_ns - r->switch_began_ns) / 1000;
}

static json_t *phases(const struct receipt *r)
{
    json_t *out = json_object();

    for (int i = 0; i < RECEIPT_PHASES; i++)
        if (r->phases[i].name)
            json_object_set_new(out, r->phases[i].name, number(r->phases[i].ns / 1000000));
    return out;
}

static json_t *version_part(const struct tally *begin, const struct tally *end, const char *sha256)
{
    struct tally d = tally_since(begin, end);

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "started", (json_int_t)d.started,
                     "pinned", (json_int_t)d.pinned, "finished", (json_int_t)d.finished, "failed",
                     (json_int_t)d.failed, "truncated", (json_int_t)d.truncated, "cancelled",
                     (json_int_t)d.cancelled, "sha256", text_json_or_null(sha256));
}

/* The counts of all requests of the model, from begin to end. */
static void add_counts(json_t *out, const struct receipt *r)
{
    struct tally d = tally_since(&r->begin.model, &r->end.model);
    uint64_t requests = tally_ended(&d) + r->end.model.in_flight;

    json_object_set_new(out, "requests", number(requests));
    json_object_set_new(out, "finished", number(d.finished));
    json_object_set_new(out, "failed", number(d.failed));
    json_object_set_new(out, "truncated", number(d.truncated));
    json_object_set_new(out, "cancelled", number(d.cancelled));
    json_object_set_new(out, "in_flight_at_end", number(r->end.model.in_flight));
    json_object_set_new(out, "tokens", number(d.tokens));
    json_object_set_new(out, "retried", number(d.retried));
    json_object_set_new(out, "held", number(r->end.held - r->begin.held));
    json_object_set_new(out, "hold_expired", number(r->end.hold_expired - r->begin.hold_expired));
}

/*
 * What the old version got after the acknowledgement.  The reading `ack` is
 * taken when the manager hears of it, a moment after acked_ns; a start in that
 * moment is not in the difference but shows in last_start_ns.
 */
static uint64_t started_on_old(const struct receipt *r)
{
    struct tally d = tally_since(&r->ack.from, &r->until.from);

    if (!d.started && r->until.from.last_start_ns > r->acked_ns)
        return 1;
    return d.started;
}

static void add_proof(json_t *out, const struct receipt *r)
{
    uint64_t before = r->ack.from.in_flight, after = r->until.from.in_flight;
    uint64_t last = r->until.from.last_start_ns;

    json_object_set_new(out, "in_flight_at_switch", number(before));
    json_object_set_new(out, "drained", number(before > after ? before - after : 0));
    json_object_set_new(out, "started_on_old_after_switch", number(started_on_old(r)));
    json_object_set_new(out, "last_start_on_old_before_ack_us",
                        last ? json_integer(((int64_t)r->acked_ns - (int64_t)last) / 1000)
                             : json_null());
}

static void add_no_proof(json_t *out)
{
    json_object_set_new(out, "in_flight_at_switch", number(0));
    json_object_set_new(out, "drained", number(0));
    json_object_set_new(out, "started_on_old_after_switch", number(0));
    json_object_set_new(out, "last_start_on_old_before_ack_us", json_null());
}

json_t *receipt_json(const struct receipt *r)
{
    json_t *out = json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "rollout", (json_int_t)r->rollout,
        "model", r->model, "kind", r->kind, "from", r->from, "to", r->to, "result", r->result,
        "reason", text_json(r->reason ? r->reason : ""), "began", time_text(r->began_wall_ms),
        "ended", time_text(r->ended_wall_ms), "phases_ms", phases(r));

    json_object_set_new(out, "switched", json_boolean(r->switched));
    json_object_set_new(out, "recovered", json_boolean(r->recovered));
    json_object_set_new(out, "switch_us", number(receipt_switch_us(r)));
    json_object_set_new(out, "epoch", number(r->epoch));
    json_object_set_new(out, "workers", number(r->workers));
    add_counts(out, r);
    if (r->switched)
        add_proof(out, r);
    else
        add_no_proof(out);

    json_t *versions = json_object();
    json_object_set_new(versions, r->from,
                        version_part(&r->begin.from, &r->end.from, r->from_sha256));
    json_object_set_new(versions, r->to, version_part(&r->begin.to, &r->end.to, r->to_sha256));
    json_object_set_new(out, "versions", versions);
    return out;
}
