// c = a @ b for matrices with any strides, c in reading order.
namespace products {

template <class T, bool AlongK>
struct Strided {
  using Element = T;
  using Line = const T*;
  using Step = long long;
  static constexpr int width = 1;
  static constexpr bool along_k = AlongK, sparse = false;
  const T* data;
  long long line_stride, k_stride;
  __device__ Line line(int line) const { return data + line * line_stride; }
  __device__ Step step(int k) const { return k * k_stride; }
  __device__ bool inside(Line, Step) const { return true; }
  __device__ Pack<T, 1> load(Line line, Step step) const { return {line[step]}; }
};

}  // namespace products

extern "C" __global__ void __launch_bounds__(256) gemm(
    const float* a, const float* b, float* c, int m, int n, int k,
    long long a_row, long long a_column, long long b_row, long long b_column) {
  using namespace products;
  alignas(16) __shared__ float room[GemmTile::room];
  const auto store = [=](int row, int column, float value) { c[(long long)row * n + column] = value; };
  const Strided<float, true> a_by_k{a, a_row, a_column}, b_by_k{b, b_column, b_row};
  const Strided<float, false> a_by_line{a, a_row, a_column}, b_by_line{b, b_column, b_row};
  const bool a_along_k = a_column == 1, b_along_k = b_row == 1 && b_column != 1;  // the contiguous axes
  if (a_along_k && b_along_k) {
    tile_product<GemmTile>(a_by_k, b_by_k, m, n, k, room, store);
  } else if (a_along_k) {
    tile_product<GemmTile>(a_by_k, b_by_line, m, n, k, room, store);
  } else if (b_along_k) {
    tile_product<GemmTile>(a_by_line, b_by_k, m, n, k, room, store);
  } else {
    tile_product<GemmTile>(a_by_line, b_by_line, m, n, k, room, store);
  }
}
