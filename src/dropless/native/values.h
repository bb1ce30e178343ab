/* Texts to typed values, one at a time: what every reader of text in this folder shares.
 *
 * Only the plainest spellings are taken; whatever is in doubt stays a text, which the decoders in Python judge. So a
 * value made here is right, and nothing is refused here that they would take.
 */
#ifndef DROPLESS_VALUES_H
#define DROPLESS_VALUES_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are looked at byte by byte from their low end, with builtins of gcc and clang"
#endif

/* The kinds of columns; dropless/native/__init__.py has the same list. */
enum { SKIPPED, STRING, INT, FLOAT, DECIMAL, BOOL, DATE, STAMP, SPELLED, PARSED };

/* What is known of one cell: not there, NULL, in `values`, a text to be looked at, of the wrong kind. */
enum { ABSENT, NONE, VALUE, TEXT, WRONG };

typedef struct {
    int32_t kind;
    int32_t width;     /* Bytes of a value. */
    int32_t scale;     /* Decimals that are kept: of a decimal, or of a second. */
    int32_t whole;     /* Digits before the point of a decimal. */
    int64_t low, high; /* Bounds of a whole number. */
    uint8_t *state;    /* One of each of these for every row. */
    void *values;
    uint32_t *begin, *size;
} Column;

typedef const uint8_t *Text;

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t WHOLE_TENS[] = {1ULL,
                                      10ULL,
                                      100ULL,
                                      1000ULL,
                                      10000ULL,
                                      100000ULL,
                                      1000000ULL,
                                      10000000ULL,
                                      100000000ULL,
                                      1000000000ULL,
                                      10000000000ULL,
                                      100000000000ULL,
                                      1000000000000ULL,
                                      10000000000000ULL,
                                      100000000000000ULL,
                                      1000000000000000ULL,
                                      10000000000000000ULL,
                                      100000000000000000ULL,
                                      1000000000000000000ULL};
#define EXACT_DIGITS 18 /* So many digits fit 64 bits, whichever they are. */
#define EXACT_DOUBLE (1ULL << 53)
#define EXACT_TENS 22 /* Powers of ten up to this one are doubles. */

static inline int digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

static inline uint8_t leave(const Column *c, int64_t row, Text base, Text begin, Text end)
{
    c->begin[row] = (uint32_t)(begin - base);
    c->size[row] = (uint32_t)(end - begin);
    return TEXT;
}

/* A number as it is spelled: `[-]whole[.decimals][e exponent]`. `digits` is exact where there are few enough. */
typedef struct {
    uint64_t digits;
    ptrdiff_t whole, decimals;
    int64_t exponent;
    int negative, zero_led, raised;
} Number;

/* Reads the digits at `p`; returns where they end, NULL where there is no number. */
static inline Text read_number(Text p, Text end, Number *n)
{
    uint64_t digits = 0;
    n->negative = p < end && *p == '-';
    p += n->negative;
    Text begin = p;
    while (p < end && digit(*p)) digits = digits * 10 + (uint64_t)(*p++ - '0');
    n->whole = p - begin;
    n->zero_led = n->whole > 1 && *begin == '0';
    n->decimals = 0;
    n->raised = 0;
    n->exponent = 0;
    if (!n->whole) return NULL;
    if (p < end && *p == '.') {
        begin = ++p;
        while (p < end && digit(*p)) digits = digits * 10 + (uint64_t)(*p++ - '0');
        n->decimals = p - begin;
        if (!n->decimals) return NULL;
    }
    n->digits = digits;
    return p;
}

static inline uint8_t put_whole(const Column *c, int64_t row, int64_t v)
{
    if (v < c->low || v > c->high) return WRONG;
    switch (c->width) {
    case 1: ((int8_t *)c->values)[row] = (int8_t)v; break;
    case 2: ((int16_t *)c->values)[row] = (int16_t)v; break;
    case 4: ((int32_t *)c->values)[row] = (int32_t)v; break;
    default: ((int64_t *)c->values)[row] = v;
    }
    return VALUE;
}

static inline uint8_t put_float(const Column *c, int64_t row, const Number *n)
{
#if FLT_EVAL_METHOD == 0
    int64_t tens = n->exponent - n->decimals;
    /* Both are doubles without rounding, so the quotient or product is the double nearest to the number. */
    if (n->whole + n->decimals > EXACT_DIGITS || n->digits > EXACT_DOUBLE || tens < -EXACT_TENS || tens > EXACT_TENS)
        return TEXT;
    double v = tens < 0 ? (double)n->digits / TENS[-tens] : (double)n->digits * TENS[tens];
    if (n->negative) v = -v;
    if (c->width == 4)
        ((float *)c->values)[row] = (float)v;
    else
        ((double *)c->values)[row] = v;
    return VALUE;
#else
    (void)c, (void)row, (void)n;
    return TEXT;
#endif
}

static inline uint8_t put_decimal(const Column *c, int64_t row, const Number *n)
{
    ptrdiff_t decimals = n->decimals;
    uint64_t v = n->digits;
    if (n->raised || n->whole + decimals > EXACT_DIGITS || n->whole > c->whole) return TEXT;
    for (; decimals > c->scale; decimals--, v /= 10)
        if (v % 10) return WRONG; /* It would be rounded. */
    if (n->whole + c->scale > EXACT_DIGITS) return TEXT;
    int64_t low = (int64_t)(v * WHOLE_TENS[c->scale - decimals]);
    if (n->negative) low = -low;
    ((int64_t *)c->values)[2 * row] = low;
    ((int64_t *)c->values)[2 * row + 1] = low < 0 ? -1 : 0;
    return VALUE;
}

static inline uint8_t put_number(const Column *c, int64_t row, const Number *n)
{
    switch (c->kind) {
    case INT:
        if (n->raised) return TEXT;
        if (n->decimals) return WRONG;
        if (n->whole > EXACT_DIGITS) return TEXT;
        return put_whole(c, row, n->negative ? -(int64_t)n->digits : (int64_t)n->digits);
    case FLOAT: return put_float(c, row, n);
    case DECIMAL: return put_decimal(c, row, n);
    default: return WRONG;
    }
}

static inline int two(Text p) { return (p[0] - '0') * 10 + (p[1] - '0'); }

/* `p` has the digits where `layout` has d, and its other characters; T may be a space. */
static inline int laid_out(Text p, const char *layout, ptrdiff_t size)
{
    int good = 1;
    for (ptrdiff_t i = 0; i < size; i++) {
        char want = layout[i];
        good &= want == 'd' ? digit(p[i]) : want == 'T' ? p[i] == 'T' || p[i] == ' ' : p[i] == (uint8_t)want;
    }
    return good;
}

static inline int days_in(int year, int month)
{
    static const int DAYS[] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (month < 1 || month > 12) return 0;
    return DAYS[month] + (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

/* Days since 1970-01-01 in the Gregorian calendar, for years from 1 on. */
static inline int64_t days_since(int year, int month, int day)
{
    int64_t y = year - (month <= 2);
    int64_t era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* A date, or a date and time without offset and of no more decimals than are kept. */
static inline uint8_t put_moment(const Column *c, int64_t row, Text p, Text end)
{
    static const char LAYOUT[] = "dddd-dd-ddTdd:dd:dd.dddddd";
    ptrdiff_t size = end - p;
    int timed = size != 10;
    if (timed && (c->kind == DATE || (size != 16 && size != 19 && size != 23 && size != 26))) return TEXT;
    if (size > 20 + c->scale || !laid_out(p, LAYOUT, size)) return TEXT;
    int year = two(p) * 100 + two(p + 2), month = two(p + 5), day = two(p + 8);
    if (!year || !day || day > days_in(year, month)) return WRONG; /* Of this layout, and no day there is. */
    int64_t v = days_since(year, month, day);
    if (c->kind == DATE) {
        ((int32_t *)c->values)[row] = (int32_t)v;
        return VALUE;
    }
    int hour = 0, minute = 0, second = 0, decimals = 0;
    if (timed) {
        hour = two(p + 11), minute = two(p + 14);
        if (size > 16) second = two(p + 17);
        if (hour > 23 || minute > 59 || second > 59) return WRONG;
    }
    v = ((v * 24 + hour) * 60 + minute) * 60 + second;
    for (ptrdiff_t i = 20; i < size; i++, decimals++) v = v * 10 + (p[i] - '0');
    ((int64_t *)c->values)[row] = v * (int64_t)WHOLE_TENS[c->scale - decimals];
    return VALUE;
}

/* Where the first byte stands that is no whole character of UTF-8; NULL where all are. */
static inline Text not_utf8(Text p, Text end)
{
    while (p < end) {
        uint8_t c = *p;
        if (c < 0x80) {
            p++;
            continue;
        }
        int more = c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
        if (!more || end - p <= more) return p;
        uint8_t low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (p[1] < low || p[1] > high) return p;
        for (int i = 2; i <= more; i++)
            if ((p[i] & 0xC0) != 0x80) return p;
        p += more + 1;
    }
    return NULL;
}

#define EACH(byte) ((uint64_t)(byte) * 0x0101010101010101ULL)
#define HIGH EACH(0x80)

static inline uint64_t word_at(Text p)
{
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

/* The high bit of each byte of the word that is `byte`; what stands above the first such byte is of no use. */
static inline uint64_t those(uint64_t word, uint8_t byte)
{
    uint64_t x = word ^ EACH(byte);
    return (x - EACH(1)) & ~x & HIGH;
}

/* The same for bytes below `byte`, which is at most 128. */
static inline uint64_t those_below(uint64_t word, uint8_t byte) { return (word - EACH(byte)) & ~word & HIGH; }

#endif
