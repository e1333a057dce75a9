#include <algorithm>

#include "model/chat_template/builtins.h"
#include "model/chat_template/interpreter.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {

using Kind = Value::Kind;

Result<Value> Interpreter::evaluate(const Expr& expr) {
  if (expr.kind == ExprKind::kConstant) return expr.constant;
  const DepthGuard guard(*this);
  TRY(guard.check());
  line_ = expr.line;
  Value value = TRY(evaluate_parts(expr));
  TRY(budget_.check());
  return value;
}

Result<Value> Interpreter::evaluate_parts(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return evaluate_name(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return evaluate_list(expr);
    case ExprKind::kDict:
      return evaluate_dict(expr);
    case ExprKind::kAttribute:
      return attribute(TRY(evaluate(*expr.args[0])), expr.name, budget_);
    case ExprKind::kItem: {
      const Value object = TRY(evaluate(*expr.args[0]));
      return item(object, TRY(evaluate(*expr.args[1])), budget_);
    }
    case ExprKind::kSlice:
      return evaluate_slice(expr);
    case ExprKind::kCall:
      return evaluate_call(expr);
    case ExprKind::kFilter:
      return evaluate_filter(expr, nullptr);
    case ExprKind::kTest: {
      const Value input = TRY(evaluate(*expr.args[0]));
      return Value::boolean(TRY(apply_test(expr.name, input, TRY(evaluate_arguments(expr)), budget_)));
    }
    case ExprKind::kNot:
      return Value::boolean(!TRY(evaluate(*expr.args[0])).truthy());
    case ExprKind::kNegate:
      return negate(TRY(evaluate(*expr.args[0])));
    case ExprKind::kPositive:
      return arithmetic(Op::kAdd, Value::integer(0), TRY(evaluate(*expr.args[0])), budget_);
    case ExprKind::kArithmetic:
      return evaluate_arithmetic(expr);
    case ExprKind::kConcat:
      return evaluate_concat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return evaluate_logic(expr);
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kConditional:
      return evaluate_conditional(expr);
  }
  return type_error("unknown expression");
}

Result<Value> Interpreter::evaluate_name(const Expr& expr) {
  if (const Value* found = scope_->find(expr.name, budget_)) return *found;
  return Value::undefined("'" + expr.name.substr(0, 100) + "' is undefined");
}

Result<Value> Interpreter::evaluate_list(const Expr& expr) {
  List items;
  for (const ExprPtr& part : expr.args) items.push_back(TRY(evaluate(*part)));
  return Value::list(std::move(items), budget_, expr.kind == ExprKind::kTuple ? Sequence::kTuple : Sequence::kList);
}

Result<Value> Interpreter::evaluate_dict(const Expr& expr) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    const Value key = TRY(evaluate(*expr.args[i]));
    if (!dict->set(key, TRY(evaluate(*expr.args[i + 1])), budget_)) {
      return type_error("a " + std::string(key.type_name()) + " cannot be a key of a dict");
    }
  }
  return Value::dict(std::move(dict));
}

Result<Value> Interpreter::evaluate_slice(const Expr& expr) {
  const Value object = TRY(evaluate(*expr.args[0]));
  Value bounds[3];
  for (int i = 0; i < 3; ++i) bounds[i] = expr.args[i + 1] ? TRY(evaluate(*expr.args[i + 1])) : Value::none();
  return slice(object, bounds[0], bounds[1], bounds[2], budget_);
}

Result<Args> Interpreter::evaluate_arguments(const Expr& expr) {
  Args args;
  for (size_t i = 1; i < expr.args.size(); ++i) args.positional.push_back(TRY(evaluate(*expr.args[i])));
  for (const auto& [name, value] : expr.named) args.named.emplace_back(name, TRY(evaluate(*value)));
  if (expr.spread_list) {
    for (Value& extra : TRY(iterate(TRY(evaluate(*expr.spread_list)), budget_))) {
      args.positional.push_back(std::move(extra));
    }
  }
  if (expr.spread_dict) {
    const Value extras = TRY(evaluate(*expr.spread_dict));
    if (!extras.is(Kind::kDict)) return type_error("** needs a mapping");
    for (const auto& [key, value] : extras.as_dict().entries()) {
      if (!key.is_string()) return type_error("keywords must be strings");
      args.named.emplace_back(key.as_string(), value);
    }
  }
  if (args.positional.size() > Args::kArgsMax || args.named.size() > Args::kArgsMax) {
    return type_error("a call has over 255 arguments");
  }
  return args;
}

Result<Value> Interpreter::evaluate_call(const Expr& expr) {
  const Value callee = TRY(evaluate(*expr.args[0]));
  const Args args = TRY(evaluate_arguments(expr));
  line_ = expr.line;
  return call(callee, args);
}

Result<Value> Interpreter::call(const Value& callee, const Args& args) {
  if (callee.is(Kind::kCallable)) return callee.as_callable().call(args);
  if (callee.is(Kind::kLoop)) {
    // The callee may be a variable that the call assigns anew.
    const std::shared_ptr<Loop> loop = callee.as_loop();  // NOLINT(performance-unnecessary-copy-initialization)
    if (loop->recurse) return loop->recurse(args);
    return type_error("the loop is not recursive; write {% for ... recursive %}");
  }
  if (callee.is_undefined()) return type_error(callee.why_undefined());
  return type_error("'" + std::string(callee.type_name()) + "' object is not callable");
}

// `input` is the text of a filtered block; without it the filter's own operand is evaluated.
Result<Value> Interpreter::evaluate_filter(const Expr& expr, const Value* input) {
  Value value;
  if (expr.args[0] && expr.args[0]->kind == ExprKind::kFilter) {
    value = TRY(evaluate_filter(*expr.args[0], input));
  } else if (expr.args[0]) {
    value = TRY(evaluate(*expr.args[0]));
  } else {
    value = *input;
  }
  const Args args = TRY(evaluate_arguments(expr));
  line_ = expr.line;
  return apply_filter(expr.name, value, args, budget_);
}

Result<Value> Interpreter::evaluate_arithmetic(const Expr& expr) {
  Value value = TRY(evaluate(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    const Value right = TRY(evaluate(*expr.args[i + 1]));
    value = TRY(arithmetic(expr.ops[i], value, right, budget_));
  }
  return value;
}

Result<Value> Interpreter::evaluate_concat(const Expr& expr) {
  std::string out;
  for (const ExprPtr& part : expr.args) append_str(out, TRY(evaluate(*part)), budget_);
  return Value::string(std::move(out));
}

// The operand that decides, as in Python.
Result<Value> Interpreter::evaluate_logic(const Expr& expr) {
  Value value;
  for (const ExprPtr& part : expr.args) {
    value = TRY(evaluate(*part));
    if (value.truthy() == (expr.kind == ExprKind::kOr)) break;
  }
  return value;
}

Result<Value> Interpreter::evaluate_compare(const Expr& expr) {
  Value left = TRY(evaluate(*expr.args[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = TRY(evaluate(*expr.args[i + 1]));
    if (!TRY(compare(expr.ops[i], left, right, budget_))) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<Value> Interpreter::evaluate_conditional(const Expr& expr) {
  if (TRY(evaluate(*expr.args[1])).truthy()) return evaluate(*expr.args[0]);
  if (expr.args[2]) return evaluate(*expr.args[2]);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace runahead::jinja
