/* The scan of one direction as one would first write it: the yardstick of scan.py. One thread, expf from libm.
 * x, dt, y (length, channels); A (channels, states); B, C (length, states); D, dt_bias (channels); z like x. */
#include <math.h>
#include <string.h>

void plain_scan(const float* x, const float* dt, const float* A, const float* B, const float* C, const float* D,
                const float* z, const float* dt_bias, float* y, long length, long channels, long states) {
  float h[256];
  for (long d = 0; d < channels; ++d) {
    memset(h, 0, sizeof h);
    for (long t = 0; t < length; ++t) {
      const float v = dt[t * channels + d] + dt_bias[d], xt = x[t * channels + d], zt = z[t * channels + d];
      const float delta = v > 20.0f ? v : log1pf(expf(v));
      float sum = 0.0f;
      for (long n = 0; n < states; ++n) {
        h[n] = expf(delta * A[d * states + n]) * h[n] + delta * xt * B[t * states + n];
        sum += C[t * states + n] * h[n];
      }
      y[t * channels + d] = (sum + D[d] * xt) * (zt / (1.0f + expf(-zt)));
    }
  }
}
