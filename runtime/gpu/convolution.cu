// Convolutions over images, channels last, and their adjoints, as products with a matrix of windows that is never made.
//
// A window is placed over an image at every place of a grid. A struct `Window` describes it with these constants:
//
//   height, width, channels         of the image that is read, and `depth`, its channels in one group
//   rows, columns                   of the grid of places
//   taps_y, taps_x                  of the window
//   scale_y, origin_y, step_y, divisor_y (and _x)
//                                   tap i of the window at place p reads row (p * scale + i * step + origin) / divisor,
//                                   or nothing if there is a remainder or the row is outside of the image
//   bordered                        whether a tap may read nothing
//   images_last                     whether places are ordered by pixel and then by image: a tile is then a pixel of
//                                   many images, and steps whose taps read nothing there are skipped
//   outputs, filters                channels that are written, and those of one group
//   vector                          channels loaded at once, 1 or 4
//   by_channel                      whether neighbouring threads load channels rather than places
//
// conv2d: scale = stride, origin = -padding, step = dilation, divisor = 1
// conv2d_input_grad, which reads dy at places of dx: scale = 1, origin = padding, step = -dilation, divisor = stride
namespace products {

template <class T, class Window>
struct Windows {
  using Element = T;
  static constexpr int width = Window::vector;
  static constexpr int places = Window::rows * Window::columns;
  const T* data;
  int images, first_channel;

  struct Place {
    const T* image;
    int y, x;
  };
  struct Tap {
    int y, x, channel;
  };

  __device__ int image_of(int row) const { return Window::images_last ? row % images : row / places; }
  __device__ int pixel_of(int row) const { return Window::images_last ? row / images : row % places; }
  __device__ long long index(int row) const { return (long long)image_of(row) * places + pixel_of(row); }

  __device__ Place place(int row) const {
    const int pixel = pixel_of(row);
    return {
        data + (long long)image_of(row) * (Window::height * Window::width * Window::channels),
        pixel / Window::columns * Window::scale_y + Window::origin_y,
        pixel % Window::columns * Window::scale_x + Window::origin_x};
  }
  __device__ Tap tap(int k) const {
    const int tap = k / Window::depth;
    return {
        tap / Window::taps_x * Window::step_y, tap % Window::taps_x * Window::step_x,
        first_channel + k % Window::depth};
  }
  __device__ bool sees(const Place& place, const Tap& tap) const {
    if (!Window::bordered) return true;
    const int y = place.y + tap.y, x = place.x + tap.x;
    return 0 <= y && y < Window::height * Window::divisor_y && y % Window::divisor_y == 0 &&
        0 <= x && x < Window::width * Window::divisor_x && x % Window::divisor_x == 0;
  }
  __device__ Pack<T, width> load(const Place& place, const Tap& tap) const {
    const int y = (place.y + tap.y) / Window::divisor_y, x = (place.x + tap.x) / Window::divisor_x;
    return pack_at<T, width>(place.image + (y * Window::width + x) * Window::channels + tap.channel);
  }
};

// The matrix with a row for each place and a column for each tap and channel.
template <class T, class Window>
struct RowOfPlace : Windows<T, Window> {
  using Base = Windows<T, Window>;
  using Line = typename Base::Place;
  using Step = typename Base::Tap;
  static constexpr bool along_k = Window::by_channel, sparse = Window::images_last;
  __device__ Line line(int row) const { return this->place(row); }
  __device__ Step step(int k) const { return this->tap(k); }
  __device__ bool inside(const Line& place, const Step& tap) const { return this->sees(place, tap); }
};

// The same with rows and columns exchanged.
template <class T, class Window>
struct RowOfTap : Windows<T, Window> {
  using Base = Windows<T, Window>;
  using Line = typename Base::Tap;
  using Step = typename Base::Place;
  static constexpr bool along_k = !Window::by_channel, sparse = false;
  __device__ Line line(int row) const { return this->tap(row); }
  __device__ Step step(int k) const { return this->place(k); }
  __device__ bool inside(const Line& tap, const Step& place) const { return this->sees(place, tap); }
  __device__ Pack<T, Base::width> load(const Line& tap, const Step& place) const { return Base::load(place, tap); }
};

// Some columns of a matrix in reading order.
template <class T, int Pitch, int Width>
struct Columns {
  using Element = T;
  using Line = int;
  using Step = const T*;
  static constexpr int width = Width;
  static constexpr bool along_k = false, sparse = false;
  const T* data;
  __device__ Line line(int column) const { return column; }
  __device__ Step step(int k) const { return data + (long long)k * Pitch; }
  __device__ bool inside(Line, Step) const { return true; }
  __device__ Pack<T, Width> load(Line column, Step row) const { return pack_at<T, Width>(row + column); }
};

// Filters [taps, columns, outputs] as a matrix [taps * depth, columns], where depth counts the outputs of one group.
template <class T, class Window>
struct TurnedFilters {
  using Element = T;
  using Line = int;
  using Step = int;
  static constexpr int width = Window::vector;
  static constexpr bool along_k = true, sparse = false;
  const T* data;
  __device__ Line line(int column) const { return column * Window::channels; }
  __device__ Step step(int k) const {
    return k / Window::depth * (Window::filters * Window::channels) + k % Window::depth;
  }
  __device__ bool inside(Line, Step) const { return true; }
  __device__ Pack<T, width> load(Line line, Step step) const { return pack_at<T, width>(data + line + step); }
};

// y[places, outputs] = windows of x @ w; calls store(i, c, value) for element i in reading order, of channel c.
template <class Window, class Shape, class T, class Store>
__device__ void conv2d(const T* x, const T* w, int images, T* room, Store store) {
  const int group = blockIdx.z, first = group * Window::filters;
  const RowOfPlace<T, Window> a{{x, images, group * Window::depth}};
  const Columns<T, Window::outputs, Window::filters % 4 ? 1 : 4> b{w + first};
  const int depth = Window::taps_y * Window::taps_x * Window::depth;
  tile_product<Shape>(a, b, images * a.places, Window::filters, depth, room, [&](int row, int column, T value) {
    store(a.index(row) * Window::outputs + first + column, first + column, value);
  });
}

// dx[places, outputs] = windows of dy @ turned w.
template <class Window, class Shape, class T, class Store>
__device__ void conv2d_input_grad(const T* dy, const T* w, int images, T* room, Store store) {
  const int group = blockIdx.z, first = group * Window::filters;
  const RowOfPlace<T, Window> a{{dy, images, group * Window::depth}};
  const TurnedFilters<T, Window> b{w + group * Window::depth};
  const int depth = Window::taps_y * Window::taps_x * Window::depth;
  tile_product<Shape>(a, b, images * a.places, Window::filters, depth, room, [&](int row, int column, T value) {
    store(a.index(row) * Window::outputs + first + column, first + column, value);
  });
}

// dw[taps and channels, outputs] = turned windows of x @ dy.
template <class Window, class Shape, class T, class Store>
__device__ void conv2d_filter_grad(
    const T* x, const T* dy, int images, T* room, T* partial, unsigned int* counters, Store store) {
  const int group = blockIdx.z / Shape::splits, first = group * Window::filters;
  const RowOfTap<T, Window> a{{x, images, group * Window::depth}};
  const Columns<T, Window::outputs, Window::filters % 4 ? 1 : 4> b{dy + first};
  const int rows = Window::taps_y * Window::taps_x * Window::depth;
  tile_product<Shape>(
      a, b, rows, Window::filters, images * a.places, room,
      [&](int row, int column, T value) {
        store((long long)row * Window::outputs + first + column, first + column, value);
      },
      partial, counters);
}

// Depthwise convolutions, with a group for each channel: a thread computes one element. `depth` is the number of
// channels that an output reads, and `Sharing` the number of outputs that read a channel; one of them is 1.
template <class Window, int Sharing, class T, class Store>
__device__ void depthwise(const T* image, const T* w, int images, Store store) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const Windows<T, Window> windows{image, images, 0};
  if (i >= (long long)images * windows.places * Window::outputs) return;
  const int c = i % Window::outputs, filters = Window::outputs * Window::depth;
  const auto place = windows.place(i / Window::outputs);
  T sum = 0;
#pragma unroll
  for (int k = 0; k < Window::taps_y * Window::taps_x * Window::depth; k++) {
    auto tap = windows.tap(k);
    const int filter = c * Window::depth + tap.channel;
    tap.channel = filter / Sharing;
    if (windows.sees(place, tap)) sum += windows.load(place, tap).at[0] * w[k / Window::depth * filters + filter];
  }
  store(i, c, sum);
}

// The gradient of their filters: a block has `Across` channels and some of the places, `Down` of them at a time.
template <class Window, int Sharing, int Across, int Down, int Splits, int Fan, class T, class Store>
__device__ void depthwise_filter_grad(
    const T* x, const T* dy, int images, T* room, T* partial, unsigned int* counters, Store store) {
  constexpr int taps = Window::taps_y * Window::taps_x, threads = Across * Down;
  const Windows<T, Window> windows{x, images, 0};
  const int right = threadIdx.x % Across, down = threadIdx.x / Across, c = blockIdx.x * Across + right;
  const int places = images * windows.places, share = ceil_div(places, Splits);
  const int end = least(places, ((int)blockIdx.y + 1) * share);
  T sums[taps] = {};
  if (c < Window::outputs) {
    for (int k = blockIdx.y * share + down; k < end; k += Down) {
      const auto place = windows.place(k);
      const T slope = dy[(long long)k * Window::outputs + c];
#pragma unroll
      for (int n = 0; n < taps; n++) {
        auto tap = windows.tap(n);
        tap.channel = c / Sharing;
        if (windows.sees(place, tap)) sums[n] += windows.load(place, tap).at[0] * slope;
      }
    }
  }
  for (int turn = 0; turn < Down; turn++) {
    __syncthreads();
    if (down != turn) continue;
#pragma unroll
    for (int n = 0; n < taps; n++) room[n * Across + right] = turn ? room[n * Across + right] + sums[n] : sums[n];
  }
  __syncthreads();
  constexpr int count = ceil_div(taps * Across, threads);
  T cells[count];
#pragma unroll
  for (int n = 0; n < count; n++) cells[n] = room[least(threadIdx.x + n * threads, taps * Across - 1)];
  partial += (long long)blockIdx.x * Splits * count * threads;
  if (!add_splits<Splits, Fan, threads>(cells, blockIdx.y, partial, counters + blockIdx.x * Splits)) return;
#pragma unroll
  for (int n = 0; n < count; n++) {
    const int cell = threadIdx.x + n * threads, channel = blockIdx.x * Across + cell % Across;
    if (cell < taps * Across && channel < Window::outputs) {
      store((long long)(cell / Across) * Window::outputs + channel, channel, cells[n]);
    }
  }
}

}  // namespace products
