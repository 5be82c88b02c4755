// Matrix products whose operands need not be in memory: a struct computes where the elements of A and B are.
//
//   C[row, column] = sum over k of A[row, k] * B[k, column]
//
// A block of threads computes one tile of C. It loads `depth` values of k at a time into shared memory, and multiplies
// them while the next ones are loaded. The threads are in teams, each of which computes a slice of every such step, so
// that a small C has enough threads; a long sum is also split among blocks. All partial sums are added in a fixed order.
//
// An operand has lines, which are rows of A or columns of B:
//
//   Element                    float or double
//   width                      neighbours that it loads at once, 1 or 4; their address is a multiple of their size
//   along_k                    whether neighbours are values of k; if not, they are lines
//   sparse                     whether it is worth checking for steps in which a tile has only zeros
//   Line line(int line)        what many elements have in common: those of a line, and those of a value of k
//   Step step(int k)
//   bool inside(Line, Step)    whether there is an element; if not, it counts as zero
//   Pack load(Line, Step)
namespace products {

__device__ constexpr int least(int a, int b) { return a < b ? a : b; }
__device__ constexpr int most(int a, int b) { return a < b ? b : a; }
__device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <class T, int N>
struct alignas(least(N * sizeof(T), 16)) Pack {
  T at[N];
};

template <class T, int N>
__device__ Pack<T, N>& pack_at(T* address) { return *reinterpret_cast<Pack<T, N>*>(address); }
template <class T, int N>
__device__ const Pack<T, N>& pack_at(const T* address) { return *reinterpret_cast<const Pack<T, N>*>(address); }

// The shape of a tile, and its division: a thread adds up thread_rows x thread_columns elements over its slice.
// Splits are added `fan` at a time, and then their sums.
template <int Rows, int Columns, int ThreadColumns, int Depth, int Slices, int Splits = 1, int Fan = 1>
struct Tile {
  static constexpr int rows = Rows, columns = Columns, depth = Depth, slices = Slices, splits = Splits, fan = Fan;
  static constexpr int thread_rows = 4, thread_columns = ThreadColumns;
  static constexpr int across = Columns / ThreadColumns, team = Rows / thread_rows * across, threads = team * Slices;
  static constexpr int pitch = Columns + 4;                                          // of the tile in shared memory
  static constexpr int cells = ceil_div(Rows * Columns, threads);                    // that a thread writes
  static constexpr int room = most(2 * Depth * (Rows + Columns + 2), Rows * pitch);  // elements of shared memory
  static_assert(Rows % 32 == 0 && Depth % 16 == 0 && Depth % Slices == 0 && Columns % ThreadColumns == 0, "");
};

// Copies one operand to shared memory, where a block of it is [depth, Lines]. The writes of a warp are in many banks:
// along k it has packs of four lines, and these lines are shuffled, or rows have padding.
template <class Operand, int Lines, class Shape>
struct Feed {
  using T = typename Operand::Element;
  static constexpr int width = Operand::width;
  static constexpr bool along_k = Operand::along_k, shuffled = Lines % 32 == 0;
  static constexpr int pitch = Lines + (along_k && !shuffled ? 2 : 0), block = Shape::depth * pitch;
  static constexpr int packs = Lines * Shape::depth / width, count = ceil_div(packs, Shape::threads);
  static constexpr int run = least(8, Shape::depth / width);  // packs along k side by side

  const Operand& operand;
  typename Operand::Line lines[count];
  Pack<T, width> values[count];

  __device__ Feed(const Operand& operand, int first, int total) : operand(operand) {
#pragma unroll
    for (int n = 0; n < count; n++) {  // lines after the last one are computed like it, and not written
      lines[n] = operand.line(least(first + line_of(n), total - (along_k ? 1 : width)));
    }
  }

  // The packs that a thread loads.
  static __device__ int number(int n) { return threadIdx.x + n * Shape::threads; }
  static __device__ bool exists(int n) { return packs % Shape::threads == 0 || number(n) < packs; }
  static __device__ int line_of(int n) {
    return along_k ? number(n) / run % Lines : number(n) % (Lines / width) * width;
  }
  static __device__ int k_of(int n) {
    return along_k ? (number(n) % run + number(n) / (run * Lines) * run) * width : number(n) / (Lines / width);
  }
  static __device__ int place(int k, int line) {
    return k * pitch + (shuffled && along_k ? line ^ (k / width % 8 * 4) : line);
  }

  // From global memory to registers; returns whether this thread found any element.
  __device__ bool fetch(int first, int end) {
    bool any = false;
#pragma unroll
    for (int n = 0; n < count; n++) {
      const int k = first + k_of(n);
      const auto step = operand.step(k);
      const bool inside = exists(n) && k < end && operand.inside(lines[n], step);
      values[n] = inside ? operand.load(lines[n], step) : Pack<T, width>{};
      any |= inside;
    }
    return any;
  }

  // From registers to shared memory.
  __device__ void deposit(T* room) const {
#pragma unroll
    for (int n = 0; n < count; n++) {
      if (!exists(n)) continue;
      if (along_k) {
#pragma unroll
        for (int v = 0; v < width; v++) room[place(k_of(n) + v, line_of(n))] = values[n].at[v];
      } else {
        pack_at<T, width>(room + place(k_of(n), line_of(n))) = values[n];
      }
    }
  }

  // The lines of one of `across` threads at one k. They are in packs, which are dealt to the threads in turn.
  static constexpr int reading = shuffled ? 4 : 2;
  static __device__ int line_of_thread(int n, int thread, int across) {
    return (n / reading * across + thread) * reading + n % reading;
  }
  template <int Count>
  static __device__ void read(T (&lines)[Count], const T* room, int k, int thread, int across) {
#pragma unroll
    for (int n = 0; n < Count; n += reading) {
      const auto pack = pack_at<T, reading>(room + place(k, line_of_thread(n, thread, across)));
#pragma unroll
      for (int v = 0; v < reading; v++) lines[n + v] = pack.at[v];
    }
  }
};

// Adds up the sums of all splits in a fixed order. Returns true in one block of them, the last to get here, which then
// has the totals. There are `Splits` counters; they are zero again afterwards.
template <int Splits, int Fan, int Threads, int Count, class T>
__device__ bool add_splits(T (&sums)[Count], int split, T* partial, unsigned int* counters) {
  for (int span = 1, level = 0; span < Splits; span *= Fan, level++) {
    const int first = split / (span * Fan) * (span * Fan), end = least(first + span * Fan, Splits);
    T* mine = partial + (long long)(split / span * span) * (Count * Threads) + threadIdx.x;
#pragma unroll
    for (int n = 0; n < Count; n++) mine[n * Threads] = sums[n];
    __threadfence();
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
      unsigned int* counter = counters + first + level;
      last = atomicAdd(counter, 1u) == ceil_div(end - first, span) - 1;
      if (last) *counter = 0;
    }
    if (!__syncthreads_or(last)) return false;
    __threadfence();
#pragma unroll
    for (int n = 0; n < Count; n++) sums[n] = 0;
    for (int other = first; other < end; other += span) {
      const T* found = partial + (long long)other * (Count * Threads) + threadIdx.x;
#pragma unroll
      for (int n = 0; n < Count; n++) sums[n] += found[n * Threads];
    }
  }
  return true;
}

// The part of a tile that a thread adds up: one of the slices of k, and one of the pieces down and across the tile.
template <class Shape>
struct Position {
  int slice = threadIdx.x / Shape::team;
  int down = threadIdx.x % Shape::team / Shape::across, right = threadIdx.x % Shape::across;
};

// Adds the products of one slice of the values of k in shared memory.
template <class Shape, class Rows, class Columns, class T>
__device__ void multiply(
    T (&sums)[Shape::thread_rows][Shape::thread_columns], const T* a, const T* b, const Position<Shape>& position) {
  constexpr int share = Shape::depth / Shape::slices;
#pragma unroll
  for (int n = 0; n < share; n++) {
    T x[Shape::thread_rows], y[Shape::thread_columns];
    Rows::read(x, a, position.slice * share + n, position.down, Shape::team / Shape::across);
    Columns::read(y, b, position.slice * share + n, position.right, Shape::across);
#pragma unroll
    for (int r = 0; r < Shape::thread_rows; r++) {
#pragma unroll
      for (int c = 0; c < Shape::thread_columns; c++) sums[r][c] += x[r] * y[c];
    }
  }
}

// Adds up the slices in shared memory, one after the other; every thread gets some cells of the tile.
template <class Shape, class Columns, class T>
__device__ void add_slices(
    T (&cells)[Shape::cells], const T (&sums)[Shape::thread_rows][Shape::thread_columns], T* room,
    const Position<Shape>& position) {
#pragma unroll
  for (int turn = 0; turn < Shape::slices; turn++) {
    __syncthreads();
    if (position.slice != turn) continue;
#pragma unroll
    for (int r = 0; r < Shape::thread_rows; r++) {
      T* row = room + (position.down * Shape::thread_rows + r) * Shape::pitch;
#pragma unroll
      for (int c = 0; c < Shape::thread_columns; c += 2) {
        auto& pair = pack_at<T, 2>(row + Columns::line_of_thread(c, position.right, Shape::across));
        const Pack<T, 2> before = turn ? pair : Pack<T, 2>{};
        pair = {before.at[0] + sums[r][c], before.at[1] + sums[r][c + 1]};
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < Shape::cells; n++) {
    const int cell = least(threadIdx.x + n * Shape::threads, Shape::rows * Shape::columns - 1);
    cells[n] = room[cell / Shape::columns * Shape::pitch + cell % Shape::columns];
  }
}

// The tile of this block: blockIdx.x and .y number the tiles, .z the groups and the splits of each of them.
// Calls store(row, column, value) for every element. `partial` and `counters` are for splits; see add_splits.
template <class Shape, class T, class A, class B, class Store>
__device__ void tile_product(
    const A& a, const B& b, int rows, int columns, int depth, T* room, Store store, T* partial = nullptr,
    unsigned int* counters = nullptr) {
  using Rows = Feed<A, Shape::rows, Shape>;
  using Columns = Feed<B, Shape::columns, Shape>;
  const int first_row = blockIdx.x * Shape::rows, first_column = blockIdx.y * Shape::columns;
  const int split = blockIdx.z % Shape::splits;
  const int share = ceil_div(ceil_div(depth, Shape::splits), Shape::depth) * Shape::depth;
  const int start = split * share, end = least(depth, start + share);
  const Position<Shape> position;

  // There are two blocks of each operand: threads that are ahead fill one while others still multiply the other.
  T sums[Shape::thread_rows][Shape::thread_columns] = {};
  Rows a_feed(a, first_row, rows);
  Columns b_feed(b, first_column, columns);
  bool found = a_feed.fetch(start, end);
  b_feed.fetch(start, end);
  for (int k = start, half = 0; k < end; k += Shape::depth, half ^= 1) {
    T* a_block = room + half * Rows::block;
    T* b_block = room + 2 * Rows::block + half * Columns::block;
    a_feed.deposit(a_block);
    b_feed.deposit(b_block);
    bool needed = true;
    if (A::sparse) {
      needed = __syncthreads_or(found);
    } else {
      __syncthreads();
    }
    found = a_feed.fetch(k + Shape::depth, end);
    b_feed.fetch(k + Shape::depth, end);
    if (needed) multiply<Shape, Rows, Columns>(sums, a_block, b_block, position);
  }

  T cells[Shape::cells];
  add_slices<Shape, Columns>(cells, sums, room, position);
  if (Shape::splits > 1) {
    const int tile = (blockIdx.z / Shape::splits * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    partial += (long long)tile * Shape::splits * Shape::cells * Shape::threads;
    counters += tile * Shape::splits;
    if (!add_splits<Shape::splits, Shape::fan, Shape::threads>(cells, split, partial, counters)) return;
  }
#pragma unroll
  for (int n = 0; n < Shape::cells; n++) {
    const int cell = threadIdx.x + n * Shape::threads;
    const int row = first_row + cell / Shape::columns, column = first_column + cell % Shape::columns;
    if (cell < Shape::rows * Shape::columns && row < rows && column < columns) store(row, column, cells[n]);
  }
}

}  // namespace products
