#include "model/chat_template/interpreter.h"

#include <algorithm>

#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {

using Kind = Value::Kind;

// Opens a scope under `parent` and returns to the current one at its end.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& interpreter, ScopePtr parent)
      : interpreter_(interpreter), saved_(std::move(interpreter.scope_)) {
    interpreter.scope_ = std::make_shared<Scope>(std::move(parent));
  }
  explicit ScopeGuard(Interpreter& interpreter) : ScopeGuard(interpreter, interpreter.scope_) {}
  ~ScopeGuard() { interpreter_.scope_ = std::move(saved_); }
  ScopeGuard(const ScopeGuard&) = delete;

 private:
  Interpreter& interpreter_;
  ScopePtr saved_;
};

const Value* Interpreter::Scope::find(std::string_view name, Budget& budget) const {
  for (const Scope* scope = this; scope; scope = scope->parent.get()) {
    budget.spend(scope->variables.size() / 16);
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::Scope::set(const std::string& name, Value value, Budget& budget) {
  budget.spend(1 + variables.size() / 16);
  for (auto& [key, old] : variables) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(Budget& budget) : budget_(budget) { define_globals(); }

Interpreter::~Interpreter() {
  for (const auto& scope : kept_scopes_) scope->variables.clear();
  for (const auto& name_space : namespaces_) name_space->attributes.clear();
}

Result<std::string> Interpreter::run(const Block& block) {
  const ScopeGuard guard(*this);
  TRY(execute(block));
  TRY(budget_.check());
  return std::move(out_);
}

// ---- statements ----

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  const DepthGuard guard(*this);
  TRY(guard.check());
  for (const Stmt& stmt : block) {
    line_ = stmt.line;
    const Flow flow = TRY(execute(stmt));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kText:
      TRY(write(stmt.text));
      break;
    case StmtKind::kOutput:
      TRY(write(to_str(TRY(evaluate(*stmt.exprs[0])), budget_)));
      break;
    case StmtKind::kSet:
      TRY(assign(stmt.target, TRY(evaluate(*stmt.exprs[0]))));
      break;
    case StmtKind::kSetBlock:
      TRY(execute_set(stmt));
      break;
    case StmtKind::kIf:
      return execute_if(stmt);
    case StmtKind::kFor:
      TRY(execute_for(stmt, TRY(evaluate(*stmt.exprs[0])), 0));
      break;
    case StmtKind::kMacro:
      scope_->set(stmt.name, make_macro(stmt), budget_);
      break;
    case StmtKind::kCallBlock:
      TRY(execute_call_block(stmt));
      break;
    case StmtKind::kFilterBlock: {
      const Value body = Value::string(TRY(capture(stmt.bodies[0])));
      TRY(write(to_str(TRY(evaluate_filter(*stmt.exprs[0], &body)), budget_)));
      break;
    }
    case StmtKind::kWith:
      return execute_with(stmt);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<void> Interpreter::write(std::string_view text) {
  budget_.spend_bytes(text.size());
  TRY(budget_.check());
  if (out_.size() + text.size() > limits::kTemplateOutputBytesMax) {
    return fail(ErrorCode::kTooLarge, "the chat template writes over 64 MiB; send shorter messages", "messages");
  }
  out_ += text;
  return {};
}

// What a block writes, as a string; the block has a scope of its own.
Result<std::string> Interpreter::capture(const Block& block) {
  const ScopeGuard guard(*this);
  std::string outer = std::exchange(out_, {});
  auto flow = execute(block);
  std::string text = std::exchange(out_, std::move(outer));
  TRY(std::move(flow));
  return text;
}

Result<void> Interpreter::execute_set(const Stmt& stmt) {
  Value value = Value::string(TRY(capture(stmt.bodies[0])));
  if (stmt.exprs[0]) value = TRY(evaluate_filter(*stmt.exprs[0], &value));
  return assign(stmt.target, std::move(value));
}

Result<Interpreter::Flow> Interpreter::execute_if(const Stmt& stmt) {
  for (size_t i = 0; i < stmt.bodies.size(); ++i) {
    const bool chosen = i >= stmt.exprs.size() || TRY(evaluate(*stmt.exprs[i])).truthy();
    if (chosen) return execute(stmt.bodies[i]);
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::execute_with(const Stmt& stmt) {
  List values;
  for (const ExprPtr& expr : stmt.exprs) values.push_back(TRY(evaluate(*expr)));
  const ScopeGuard guard(*this);
  for (size_t i = 0; i < values.size(); ++i) TRY(assign(stmt.targets[i], values[i]));
  return execute(stmt.bodies[0]);
}

// The items that pass the loop's own `if`, so that loop.length counts only these.
Result<List> Interpreter::loop_items(const Stmt& stmt, const Value& iterable) {
  List items = TRY(iterate(iterable, budget_));
  if (!stmt.exprs[1]) return items;
  List kept;
  for (Value& item : items) {
    const ScopeGuard guard(*this);
    TRY(assign(stmt.target, item));
    if (TRY(evaluate(*stmt.exprs[1])).truthy()) kept.push_back(std::move(item));
  }
  return kept;
}

Result<void> Interpreter::execute_for(const Stmt& stmt, const Value& iterable, int depth) {
  if (iterable.is_undefined() && stmt.recursive && depth > 0) return type_error(iterable.why_undefined());
  auto loop = std::make_shared<Loop>();
  loop->items = TRY(loop_items(stmt, iterable));
  loop->depth = depth;
  for (const Value& item : loop->items) loop->value_depth = std::max(loop->value_depth, item.depth() + 1);
  if (loop->value_depth > limits::kTemplateDepthMax) budget_.report_depth();
  TRY(budget_.check());
  if (stmt.recursive) {
    kept_scopes_.push_back(scope_);
    loop->recurse = [this, &stmt, scope = scope_, depth](const Args& args) -> Result<Value> {
      if (args.positional.size() != 1) return type_error("loop() takes the items of the next level");
      const ScopeGuard guard(*this, scope);
      std::string outer = std::exchange(out_, {});
      auto done = execute_for(stmt, args.positional[0], depth + 1);
      std::string text = std::exchange(out_, std::move(outer));
      TRY(std::move(done));
      return Value::string(std::move(text));
    };
  }
  for (; loop->index < loop->items.size(); ++loop->index) {
    const ScopeGuard guard(*this);
    scope_->set("loop", Value::loop(loop), budget_);
    TRY(assign(stmt.target, loop->items[loop->index]));
    if (TRY(execute(stmt.bodies[0])) == Flow::kBreak) break;
  }
  if (loop->items.empty() && stmt.bodies.size() > 1) {
    const ScopeGuard guard(*this);
    TRY(execute(stmt.bodies[1]));
  }
  return {};
}

Result<void> Interpreter::assign(const Target& target, Value value) {
  if (!target.items.empty()) {
    List values = TRY(iterate(value, budget_));
    if (values.size() != target.items.size()) {
      return type_error("cannot unpack " + std::to_string(values.size()) + " values into " +
                        std::to_string(target.items.size()) + " names");
    }
    for (size_t i = 0; i < values.size(); ++i) TRY(assign(target.items[i], std::move(values[i])));
    return {};
  }
  if (target.attribute.empty()) {
    scope_->set(target.name, std::move(value), budget_);
    return {};
  }
  const Value* object = scope_->find(target.name, budget_);
  if (!object || !object->is(Kind::kNamespace)) return type_error("cannot assign attribute on non-namespace object");
  auto& attributes = object->as_namespace().attributes;
  budget_.spend(attributes.size() / 8);
  for (auto& [key, old] : attributes) {
    if (key != target.attribute) continue;
    old = std::move(value);
    return {};
  }
  attributes.emplace_back(target.attribute, std::move(value));
  return {};
}

// ---- macros ----

Value Interpreter::make_macro(const Stmt& stmt) {
  kept_scopes_.push_back(scope_);
  return Value::callable(stmt.name, [this, &stmt, scope = scope_](const Args& args) -> Result<Value> {
    const ScopeGuard guard(*this, scope);
    return call_macro(stmt, args);
  });
}

Result<Value> Interpreter::call_macro(const Stmt& stmt, const Args& args) {
  TRY(bind_parameters(stmt, args));
  TRY(bind_extras(stmt, args));
  return Value::string(TRY(capture(stmt.bodies[0])));
}

Result<void> Interpreter::bind_parameters(const Stmt& stmt, const Args& args) {
  for (size_t i = 0; i < stmt.parameters.size(); ++i) {
    const Parameter& parameter = stmt.parameters[i];
    const Value* given = args.find(i, parameter.name);
    Value value = Value::undefined("parameter '" + parameter.name + "' was not provided");
    if (given) {
      value = *given;
    } else if (parameter.default_value) {
      value = TRY(evaluate(*parameter.default_value));
    }
    scope_->set(parameter.name, std::move(value), budget_);
  }
  return {};
}

// Arguments without a parameter: `varargs`, `kwargs` and `caller`, where the body names them; otherwise an error.
Result<void> Interpreter::bind_extras(const Stmt& stmt, const Args& args) {
  const size_t count = stmt.parameters.size();
  if (args.positional.size() > count && !stmt.takes_varargs) {
    return type_error("macro '" + stmt.name + "' takes not more than " + std::to_string(count) + " argument(s)");
  }
  if (stmt.takes_varargs) {
    List extra;
    for (size_t i = count; i < args.positional.size(); ++i) extra.push_back(args.positional[i]);
    scope_->set("varargs", Value::list(std::move(extra), budget_, Sequence::kTuple), budget_);
  }
  auto extra = std::make_shared<Dict>();
  Value caller = Value::undefined("no caller defined");
  for (const auto& [name, value] : args.named) {
    size_t index = 0;
    while (index < count && stmt.parameters[index].name != name) ++index;
    if (index < count && index < args.positional.size()) {
      return type_error("macro '" + stmt.name + "' got multiple values for argument '" + name + "'");
    }
    if (index < count) continue;
    if (name == "caller" && stmt.takes_caller) {
      caller = value;
    } else if (stmt.takes_kwargs) {
      extra->set(Value::string(name), value, budget_);
    } else {
      return type_error("macro '" + stmt.name + "' takes no keyword argument '" + name + "'");
    }
  }
  if (stmt.takes_kwargs) scope_->set("kwargs", Value::dict(std::move(extra)), budget_);
  if (stmt.takes_caller && stmt.kind == StmtKind::kMacro) scope_->set("caller", std::move(caller), budget_);
  return {};
}

Result<void> Interpreter::execute_call_block(const Stmt& stmt) {
  const Expr& expr = *stmt.exprs[0];
  const Value callee = TRY(evaluate(*expr.args[0]));
  Args args = TRY(evaluate_arguments(expr));
  args.named.emplace_back("caller", make_macro(stmt));
  return write(to_str(TRY(call(callee, args)), budget_));
}

}  // namespace runahead::jinja
