#include "planner/robust_fit.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace runahead {
namespace {

constexpr size_t kWindow = 64;  // samples: some requests of each of a few lengths
constexpr double kForget = 0.97;  // a sample weighs half after 23 more: changes of speed do not wait for it
constexpr double kNoiseOfSamples = 0.2;  // |ln| of measured by expected that a quiet machine's samples stay below
constexpr double kDoubt = 0.9;  // of a factor of 2.5: what is beyond it may be a hiccup
constexpr double kSettled = 0.05;  // relative residual above which a sample weighs less
constexpr int kReweightings = 3;
// Of the prior against one sample: (noise of a sample / what the prior may be off by, both as parts of the time) squared. Samples
// are some 5 % off; what is known by its prior may be off by half, what is not expected at all by a quarter.
constexpr double kPriorWeight = 0.01, kUnexpectedWeight = 0.03;
constexpr size_t kRecent = 4;  // samples that a law must explain
constexpr double kLeast = 1e-6;  // nothing is a million times faster than its prior

using Terms = RobustFit::Terms;
using Matrix = std::array<Terms, RobustFit::kTerms>;

double dot(const Terms& p, const Terms& x) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * x[i];
  return sum;
}

// p[free] of a p = b, the others as they are. a is positive definite.
Terms solve_free(Matrix a, Terms b, const Terms& p, const std::array<bool, RobustFit::kTerms>& free) {
  for (size_t i = 0; i < p.size(); ++i) {
    if (free[i]) continue;
    for (size_t j = 0; j < p.size(); ++j) {
      b[j] -= a[j][i] * p[i];
      a[i][j] = a[j][i] = 0;
    }
    a[i][i] = 1;
    b[i] = p[i];
  }
  for (size_t i = 0; i < p.size(); ++i)
    for (size_t row = i + 1; row < p.size(); ++row) {
      const double factor = a[row][i] / a[i][i];
      for (size_t j = i; j < p.size(); ++j) a[row][j] -= factor * a[i][j];
      b[row] -= factor * b[i];
    }
  Terms found{};
  for (size_t i = p.size(); i-- > 0;) {
    found[i] = b[i];
    for (size_t j = i + 1; j < p.size(); ++j) found[i] -= a[i][j] * found[j];
    found[i] /= a[i][i];
  }
  return found;
}

// Minimises p' a p / 2 - b' p over p >= lowest: what comes out below its bound is held there, the lowest first.
Terms solve_bounded(const Matrix& a, const Terms& b, const Terms& lowest) {
  std::array<bool, RobustFit::kTerms> free{};
  free.fill(true);
  Terms p{};
  while (true) {
    p = solve_free(a, b, p, free);
    size_t worst = p.size();
    for (size_t i = 0; i < p.size(); ++i)
      if (free[i] && p[i] < lowest[i] && (worst == p.size() || p[i] - lowest[i] < p[worst] - lowest[worst])) worst = i;
    if (worst == p.size()) return p;
    free[worst] = false;
    p[worst] = lowest[worst];
  }
}

}  // namespace

double RobustFit::value(const Terms& x) const { return dot(coefficients_, x); }

void RobustFit::rescale(double factor) {
  for (Sample& sample : window_) sample.y *= factor;
  for (size_t i = 0; i < kTerms; ++i) {
    prior_[i] *= factor;
    coefficients_[i] *= factor;
  }
}

// Least squares of relative errors. Unknowns are the parts of the time that each term explains on average, so that the prior
// weighs the same on all of them, whatever their units.
Terms RobustFit::solve() const {
  Terms unit{};  // of a term, in samples' own time: mean of x / y
  for (const Sample& sample : window_)
    for (size_t i = 0; i < kTerms; ++i) unit[i] += sample.x[i] / sample.y / static_cast<double>(window_.size());
  Terms prior{}, lowest{};
  for (size_t i = 0; i < kTerms; ++i) {
    prior[i] = prior_[i] * unit[i];
    lowest[i] = prior[i] * kLeast;
  }
  Terms part = prior;
  for (int round = 0; round <= kReweightings; ++round) {
    Matrix a{};
    Terms b{};
    double age = 1;
    for (auto sample = window_.rbegin(); sample != window_.rend(); ++sample, age *= kForget) {
      Terms z{};
      for (size_t i = 0; i < kTerms; ++i) z[i] = unit[i] > 0 ? sample->x[i] / sample->y / unit[i] : 0;
      const double residual = round == 0 ? 0 : (dot(part, z) - 1) / kSettled;
      const double weight = age / (1 + residual * residual);
      for (size_t i = 0; i < kTerms; ++i) {
        b[i] += weight * z[i];
        for (size_t j = 0; j < kTerms; ++j) a[i][j] += weight * z[i] * z[j];
      }
    }
    for (size_t i = 0; i < kTerms; ++i) {
      const double weight = prior[i] > 0 ? kPriorWeight : kUnexpectedWeight;
      a[i][i] += weight;
      b[i] += weight * prior[i];
    }
    part = solve_bounded(a, b, lowest);
  }
  Terms found = prior_;
  for (size_t i = 0; i < kTerms; ++i)
    if (unit[i] > 0) found[i] = part[i] / unit[i];
  return found;
}

void RobustFit::add(const Terms& x, double y) {
  RUNAHEAD_CHECK(y > 0 && value(x) > 0, "a sample is positive");
  ++samples_;
  const double factor = y / value(x);
  const auto off = [](const Terms& p, const Sample& sample) { return std::abs(std::log(sample.y / dot(p, sample.x))); };
  if (window_.empty()) rescale(factor);
  window_.push_back({x, y});
  if (window_.size() > kWindow) window_.pop_front();
  const Terms whole = solve();
  const size_t recent = std::min(kRecent, window_.size());
  const bool explained = std::all_of(window_.end() - static_cast<std::ptrdiff_t>(recent), window_.end(),
                                     [&](const Sample& sample) { return off(whole, sample) <= kNoiseOfSamples; });
  if (explained) {
    outlier_.reset();
    coefficients_ = whole;
    return;
  }
  const bool again = outlier_ && std::abs(std::log(factor * value(outlier_->x) / outlier_->y)) <= kNoiseOfSamples;
  if (std::abs(std::log(factor)) > kDoubt && !again) {
    window_.pop_back();
    outlier_ = Sample{x, y};
    return;
  }
  window_.pop_back();
  rescale(factor);
  if (again) window_.push_back(*outlier_);
  window_.push_back({x, y});
  outlier_.reset();
  coefficients_ = solve();
}

}  // namespace runahead
