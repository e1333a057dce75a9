// RobustFit: y = p[0] x[0] + ... + p[n-1] x[n-1] with p >= 0, learnt from samples of which one may be wrong and whose scale may
// change from one to the next: the time of a machine that a neighbour slows down. Scale and shape are learnt apart:
//   noise    the sample fits the law as it is, or as the last samples would have it: all are averaged, older ones less
//   change   no law explains it with the others, but a factor of at most kDoubt: so much slower or faster from now on, and
//            what was learnt before is rescaled by that factor
//   outlier  a larger factor: kept aside. If the next sample says the same, it was a change
// What samples leave open (all of one length tell no constant from a slope) the prior decides, weakly. Before the first
// sample the prior is all there is; the first one already sets its scale. Pure; not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

namespace runahead {

class RobustFit {
 public:
  static constexpr size_t kTerms = 4;
  using Terms = std::array<double, kTerms>;

  // A positive term stays positive. One whose prior is 0 is small until samples insist: noise must not be explained by it.
  explicit RobustFit(const Terms& prior) : prior_(prior), coefficients_(prior) {}

  void add(const Terms& x, double y);  // y > 0; x >= 0, and its value by the prior is positive
  const Terms& coefficients() const { return coefficients_; }
  double value(const Terms& x) const;
  int64_t samples() const { return samples_; }

 private:
  struct Sample {
    Terms x{};
    double y = 0;
  };
  void rescale(double factor);
  Terms solve() const;

  Terms prior_, coefficients_;
  std::deque<Sample> window_;  // the newest last
  std::optional<Sample> outlier_;
  int64_t samples_ = 0;
};

}  // namespace runahead
