/* Plain lines of NDJSON to typed columns.
 *
 * A line is plain if it is one flat object without escapes, in valid UTF-8, each of its keys once and known, its numbers
 * far from the limits of any type. All of its bytes are looked at, by JSON's grammar. A line that is not plain may be
 * JSON all the same: it is left to the parser.
 */
#include "values.h"

#define GUESSES 64
#define LONGEST_NUMBER 30

typedef struct {
    Text name;
    int64_t size;
    int64_t column;
} Key;

typedef struct {
    int64_t line;       /* The line to look at next. */
    int64_t row;        /* The plain lines so far. */
    int64_t name, size; /* Of the key that is not known: where it stands. */
} Progress;

typedef struct {
    Text text;
    const Column *columns;
    int64_t column_count;
    const Key *keys;
    int64_t key_count;
    int64_t guesses[GUESSES]; /* The key that stood at each place of the line before. */
} Job;

enum { PLAIN, DOUBTFUL, UNKNOWN_KEY };

static inline Text blank(Text p, Text end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* The quote that closes the string at `p`; NULL where there is none, or an escape, or what no string may have. */
static inline Text closing(Text p, Text end)
{
    Text begin = p;
    uint64_t high = 0;
    for (; end - p >= 8; p += 8) {
        uint64_t word = word_at(p), stop = those(word, '"') | those(word, '\\') | those_below(word, ' ');
        high |= word & HIGH;
        if (stop) {
            p += __builtin_ctzll(stop) >> 3;
            break;
        }
    }
    for (; p < end && *p != '"'; p++) {
        if (*p == '\\' || *p < ' ') return NULL;
        high |= *p & 0x80;
    }
    if (p >= end || *p != '"') return NULL;
    return high && not_utf8(begin, p) ? NULL : p;
}

static int64_t known(Job *job, int64_t place, Text name, Text end)
{
    for (int64_t k = 0; k < job->key_count; k++)
        if (job->keys[k].size == end - name && !memcmp(job->keys[k].name, name, (size_t)(end - name))) {
            if (place < GUESSES) job->guesses[place] = k;
            return k;
        }
    return -1;
}

static inline Text literal(Text p, Text end, const char *word, ptrdiff_t size)
{
    return end - p >= size && !memcmp(p, word, (size_t)size) ? p + size : NULL;
}

/* Takes the value at `p` into the column; returns where it ends, NULL where the line is not plain. */
static inline Text value(const Job *job, const Column *c, int64_t row, Text p, Text end)
{
    Text begin = p;
    uint8_t *state = &c->state[row];
    if (p == end) return NULL;
    switch (*p) {
    case '"':
        p = closing(++begin, end);
        if (!p) return NULL;
        switch (c->kind) {
        case SKIPPED: *state = VALUE; break;
        case DATE:
        case STAMP:
            *state = put_moment(c, row, begin, p);
            if (*state == TEXT) leave(c, row, job->text, begin, p);
            break;
        case STRING:
        case SPELLED: *state = leave(c, row, job->text, begin, p); break;
        case PARSED: return NULL;
        default: *state = WRONG;
        }
        return p + 1;
    case 'n': *state = NONE; return literal(p, end, "null", 4);
    case 't':
    case 'f':
        p = *p == 't' ? literal(p, end, "true", 4) : literal(p, end, "false", 5);
        if (c->kind == PARSED) return NULL;
        *state = c->kind == BOOL || c->kind == SKIPPED ? VALUE : WRONG;
        if (c->kind == BOOL) ((uint8_t *)c->values)[row] = *begin == 't';
        return p;
    default: {
        Number n;
        p = read_number(p, end, &n);
        if (!p || n.zero_led || c->kind == PARSED) return NULL;
        if (p < end && (*p == 'e' || *p == 'E')) {
            if (c->kind != FLOAT) return NULL;
            n.raised = 1;
            p++;
            int below = p < end && *p == '-';
            p += p < end && (*p == '-' || *p == '+');
            Text digits = p;
            for (; p < end && digit(*p) && n.exponent < 1000; p++) n.exponent = n.exponent * 10 + (*p - '0');
            if (p == digits || (p < end && digit(*p))) return NULL;
            if (below) n.exponent = -n.exponent;
        }
        if (p - begin > LONGEST_NUMBER) return NULL;
        if (n.negative && !n.digits && !n.decimals) return NULL; /* Minus zero is no whole number. */
        if (c->kind == SKIPPED) {
            *state = VALUE;
            return p;
        }
        *state = put_number(c, row, &n);
        if (*state == TEXT) {
            if (n.raised) return NULL;
            leave(c, row, job->text, begin, p);
        }
        return p;
    }
    }
}

static int line(Job *job, Text p, Text end, int64_t row, Progress *at)
{
    for (int64_t c = 0; c < job->column_count; c++) job->columns[c].state[row] = ABSENT;
    p = blank(p, end);
    if (p == end || *p != '{') return DOUBTFUL;
    p = blank(p + 1, end);
    if (p < end && *p == '}') return blank(p + 1, end) == end ? PLAIN : DOUBTFUL;
    for (int64_t place = 0;; place++) {
        if (p == end || *p != '"') return DOUBTFUL;
        Text name = ++p;
        int64_t k = place < GUESSES ? job->guesses[place] : -1;
        if (k >= 0 && job->keys[k].size < end - p && p[job->keys[k].size] == '"' &&
            !memcmp(p, job->keys[k].name, (size_t)job->keys[k].size)) {
            p += job->keys[k].size;
        } else {
            p = closing(p, end);
            if (!p) return DOUBTFUL;
            k = known(job, place, name, p);
            if (k < 0) {
                at->name = name - job->text;
                at->size = p - name;
                return UNKNOWN_KEY;
            }
        }
        p = blank(p + 1, end);
        if (p == end || *p != ':') return DOUBTFUL;
        const Column *c = &job->columns[job->keys[k].column];
        if (c->state[row] != ABSENT) return DOUBTFUL; /* The key, or another that goes to its column, stood before. */
        p = value(job, c, row, blank(p + 1, end), end);
        if (!p) return DOUBTFUL;
        p = blank(p, end);
        if (p == end) return DOUBTFUL;
        if (*p == '}') return blank(p + 1, end) == end ? PLAIN : DOUBTFUL;
        if (*p != ',') return DOUBTFUL;
        p = blank(p + 1, end);
    }
}

/* Reads the lines `text[starts[i]:ends[i]]` from `at` on that are not in the mask `skip`; `rows` gets the plain ones.
 *
 * Returns 1 where a key is met that is not known, if `stop`, to be called again when it is; 0 at the end.
 */
int32_t dropless_ndjson(Text text, const int64_t *starts, const int64_t *ends, const uint8_t *skip, int64_t count,
                        const Column *columns, int64_t column_count, const Key *keys, int64_t key_count, int32_t stop,
                        Progress *at, int64_t *rows)
{
    Job job = {text, columns, column_count, keys, key_count, {0}};
    for (int64_t i = 0; i < GUESSES; i++) job.guesses[i] = i < key_count ? i : -1;
    for (; at->line < count; at->line++) {
        int64_t i = at->line;
        if (skip[i]) continue;
        int verdict = line(&job, text + starts[i], text + ends[i], at->row, at);
        if (verdict == PLAIN) rows[at->row++] = i;
        if (verdict == UNKNOWN_KEY && stop) return 1;
    }
    return 0;
}
