/* A 2-D convolution and its gradients by plain loops, in C99, for check.py to judge.

       conv2d CASE OUT N C H W O KH KW SH SW PH PW DH DW G

   reads CASE/input.bin (N, C, H, W), weight.bin (O, C/G, KH, KW), bias.bin (O) and grad_output.bin
   (N, O, P, Q), and writes OUT/output.bin (N, O, P, Q), grad_input.bin, grad_weight.bin and grad_bias.bin:
   raw float32 values in C order, little-endian as the machine must be. S is the stride, P the padding, D
   the dilation, G the number of groups. The formula, with x = 0 outside the image:

       y[n,o,p,q] = b[o] + sum over c,i,j of x[n, c, p*SH+i*DH-PH, q*SW+j*DW-PW] * w[o,c,i,j]

   Compile with -DMISTAKE=1 to -DMISTAKE=5 for a kernel that is wrong:

       1  output: the kernel is rotated by 180 degrees
       2  grad_input: input and output channels of the weight are exchanged
       3  output: the padding is one row and one column less
       4  grad_weight and grad_bias: a mean over the batch, not a sum
       5  grad_input: the stride is ignored
*/

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef MISTAKE
#define MISTAKE 0
#endif

typedef struct {
    int N, C, H, W, O, KH, KW, SH, SW, PH, PW, DH, DW, G;
    int P, Q; /* the output's height and width */
} Shape;

/* Where an element is in its array. */

static size_t in_input(const Shape *s, int n, int c, int h, int w) {
    return (((size_t)n * s->C + c) * s->H + h) * s->W + w;
}

static size_t in_output(const Shape *s, int n, int o, int p, int q) {
    return (((size_t)n * s->O + o) * s->P + p) * s->Q + q;
}

static size_t in_weight(const Shape *s, int o, int c, int i, int j) {
    return (((size_t)o * (s->C / s->G) + c) * s->KH + i) * s->KW + j;
}

/* The channel of the image that channel c of output channel o's kernel is for. */
static int channel(const Shape *s, int o, int c) { return o / (s->O / s->G) * (s->C / s->G) + c; }

static int inside(const Shape *s, int h, int w) { return 0 <= h && h < s->H && 0 <= w && w < s->W; }

static void forward(const Shape *s, const float *x, const float *weight, const float *bias, float *y) {
    const int PH = MISTAKE == 3 ? s->PH - 1 : s->PH, PW = MISTAKE == 3 ? s->PW - 1 : s->PW;
    for (int n = 0; n < s->N; n++)
        for (int o = 0; o < s->O; o++)
            for (int p = 0; p < s->P; p++)
                for (int q = 0; q < s->Q; q++) {
                    float sum = bias[o];
                    for (int c = 0; c < s->C / s->G; c++)
                        for (int i = 0; i < s->KH; i++)
                            for (int j = 0; j < s->KW; j++) {
                                int h = p * s->SH + i * s->DH - PH, w = q * s->SW + j * s->DW - PW;
                                if (!inside(s, h, w)) continue;
                                size_t tap = MISTAKE == 1 ? in_weight(s, o, c, s->KH - 1 - i, s->KW - 1 - j)
                                                          : in_weight(s, o, c, i, j);
                                sum += x[in_input(s, n, channel(s, o, c), h, w)] * weight[tap];
                            }
                    y[in_output(s, n, o, p, q)] = sum;
                }
}

/* Each product x * w of the sum sends grad * w to its x ... */
static void backward_input(const Shape *s, const float *grad, const float *weight, float *grad_x) {
    const int SH = MISTAKE == 5 ? 1 : s->SH, SW = MISTAKE == 5 ? 1 : s->SW;
    for (int n = 0; n < s->N; n++)
        for (int o = 0; o < s->O; o++)
            for (int p = 0; p < s->P; p++)
                for (int q = 0; q < s->Q; q++)
                    for (int c = 0; c < s->C / s->G; c++)
                        for (int i = 0; i < s->KH; i++)
                            for (int j = 0; j < s->KW; j++) {
                                int h = p * SH + i * s->DH - s->PH, w = q * SW + j * s->DW - s->PW;
                                if (!inside(s, h, w)) continue;
                                size_t tap = MISTAKE == 2 ? in_weight(s, c, o, i, j) : in_weight(s, o, c, i, j);
                                grad_x[in_input(s, n, channel(s, o, c), h, w)] +=
                                    grad[in_output(s, n, o, p, q)] * weight[tap];
                            }
}

/* ... and grad * x to its w; bias is added once to each value of its channel. */
static void backward_weight(const Shape *s, const float *grad, const float *x, float *grad_weight,
                            float *grad_bias) {
    const float scale = MISTAKE == 4 ? 1.0f / (float)s->N : 1.0f;
    for (int n = 0; n < s->N; n++)
        for (int o = 0; o < s->O; o++)
            for (int p = 0; p < s->P; p++)
                for (int q = 0; q < s->Q; q++) {
                    float g = scale * grad[in_output(s, n, o, p, q)];
                    grad_bias[o] += g;
                    for (int c = 0; c < s->C / s->G; c++)
                        for (int i = 0; i < s->KH; i++)
                            for (int j = 0; j < s->KW; j++) {
                                int h = p * s->SH + i * s->DH - s->PH, w = q * s->SW + j * s->DW - s->PW;
                                if (!inside(s, h, w)) continue;
                                grad_weight[in_weight(s, o, c, i, j)] +=
                                    g * x[in_input(s, n, channel(s, o, c), h, w)];
                            }
                }
}

/* Files. */

static FILE *opened(const char *folder, const char *name, const char *mode) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s.bin", folder, name) >= (int)sizeof path) {
        fprintf(stderr, "conv2d: the path of %s.bin is too long\n", name);
        exit(2);
    }
    FILE *file = fopen(path, mode);
    if (!file) {
        perror(path);
        exit(2);
    }
    return file;
}

static float *zeros(size_t count) {
    float *values = calloc(count ? count : 1, sizeof(float));
    if (!values) {
        fprintf(stderr, "conv2d: out of memory\n");
        exit(2);
    }
    return values;
}

static float *read_values(const char *folder, const char *name, size_t count) {
    FILE *file = opened(folder, name, "rb");
    float *values = zeros(count);
    if (fread(values, sizeof(float), count, file) != count || fgetc(file) != EOF) {
        fprintf(stderr, "conv2d: %s.bin does not hold %zu values\n", name, count);
        exit(2);
    }
    fclose(file);
    return values;
}

static void write_values(const char *folder, const char *name, const float *values, size_t count) {
    FILE *file = opened(folder, name, "wb");
    size_t written = fwrite(values, sizeof(float), count, file);
    if (fclose(file) || written != count) {
        fprintf(stderr, "conv2d: %s.bin cannot be written\n", name);
        exit(2);
    }
}

static int is_little_endian(void) {
    const uint16_t one = 1;
    return *(const unsigned char *)&one;
}

int main(int argc, char **argv) {
    Shape s;
    int *lengths[] = {&s.N,  &s.C,  &s.H,  &s.W,  &s.O,  &s.KH, &s.KW,
                      &s.SH, &s.SW, &s.PH, &s.PW, &s.DH, &s.DW, &s.G};
    if (argc != 17 || !is_little_endian()) {
        fprintf(stderr, "usage: conv2d CASE OUT N C H W O KH KW SH SW PH PW DH DW G (little-endian only)\n");
        return 2;
    }
    for (int k = 0; k < 14; k++) *lengths[k] = atoi(argv[k + 3]);
    s.P = (s.H + 2 * s.PH - s.DH * (s.KH - 1) - 1) / s.SH + 1;
    s.Q = (s.W + 2 * s.PW - s.DW * (s.KW - 1) - 1) / s.SW + 1;

    size_t inputs = (size_t)s.N * s.C * s.H * s.W, outputs = (size_t)s.N * s.O * s.P * s.Q;
    size_t weights = (size_t)s.O * (s.C / s.G) * s.KH * s.KW;
    float *x = read_values(argv[1], "input", inputs);
    float *weight = read_values(argv[1], "weight", weights);
    float *bias = read_values(argv[1], "bias", (size_t)s.O);
    float *grad = read_values(argv[1], "grad_output", outputs);
    float *y = zeros(outputs), *grad_x = zeros(inputs);
    float *grad_weight = zeros(weights), *grad_bias = zeros((size_t)s.O);

    forward(&s, x, weight, bias, y);
    backward_input(&s, grad, weight, grad_x);
    backward_weight(&s, grad, x, grad_weight, grad_bias);

    write_values(argv[2], "output", y, outputs);
    write_values(argv[2], "grad_input", grad_x, inputs);
    write_values(argv[2], "grad_weight", grad_weight, weights);
    write_values(argv[2], "grad_bias", grad_bias, (size_t)s.O);
    return 0;
}
