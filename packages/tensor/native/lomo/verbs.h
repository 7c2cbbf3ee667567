// The verbs of a backend at the language border, for any device. Everything here runs on JavaScript's thread.
// A device D adds: D(Napi::Object options), kernels(), context(), threads(), allocations(), facts(env), reserve(place, bytes),
// release(Reservation), workspace(const Kernel&, const Call&), and what executor.h asks of it. Where it has them: visible(Reservation);
// algorithms(env) and adopt(Napi::Array) and tune(Command&), for what it chooses by measurement; interrupt() where its work may wait for
// others; quiesce(), which ends its own threads.
#pragma once

#include <napi.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lomo/answers.h"
#include "lomo/border.h"
#include "lomo/executor.h"
#include "lomo/packet.h"
#include "lomo/views.h"

namespace lomo {

template <class D>
class Verbs : public Napi::ObjectWrap<Verbs<D>> {
  using Info = Napi::CallbackInfo;

 public:
  static Napi::Function define(Napi::Env env) {
    return Verbs::DefineClass(env, "NativeBackend",
                              {method<&Verbs::find>("find"), method<&Verbs::attributes>("attributes"), method<&Verbs::supported>("supported"),
                               method<&Verbs::reserve>("reserve"), method<&Verbs::release>("release"), method<&Verbs::view>("view"), method<&Verbs::launch>("launch"),
                               method<&Verbs::workspace>("workspace"), method<&Verbs::copy>("copy"), method<&Verbs::wait>("wait"), method<&Verbs::write>("write"),
                               method<&Verbs::read>("read"), method<&Verbs::reserved>("reserved"), method<&Verbs::counters>("counters"),
                               method<&Verbs::facts>("facts"), method<&Verbs::time>("time"), method<&Verbs::timed>("timed"),
                               method<&Verbs::reached>("reached"), method<&Verbs::tune>("tune"), method<&Verbs::algorithms>("algorithms"), method<&Verbs::adopt>("adopt"),
                               method<&Verbs::drain>("drain"), method<&Verbs::close>("close"), method<&Verbs::stop>("stop")});
  }

  // new NativeBackend(packet: Float64Array, options)
  explicit Verbs(const Info& info) : Napi::ObjectWrap<Verbs<D>>(info) {
    const Napi::Env env = info.Env();
    border(env, [&] {
      const auto packet = info[0].As<Napi::Float64Array>();
      if (packet.ElementLength() < static_cast<std::size_t>(packet_length)) throw Error("BadPacket", "the launch packet is too short");
      packet_ = Napi::Persistent(packet.As<Napi::Object>());
      numbers_ = packet.Data();
      device_ = std::make_unique<D>(info[1].As<Napi::Object>());
      registry_ = std::make_unique<Registry>(device_->kernels());
      answers_.open(env, [this](Napi::Env e) { complete(e); });
      executor_ = std::make_unique<Executor<D>>(*device_, [this] { answers_.wake(); });
      // Added after the thread-safe function's own hook, hence run before it: the executor's thread ends while it still exists.
      napi_add_env_cleanup_hook(env, on_exit, this);
      return env.Undefined();
    });
  }

  ~Verbs() override {
    shut();
    napi_remove_env_cleanup_hook(this->Env(), on_exit, this);
  }

  D& device() { return open(), *device_; }  // for what an addon exports besides the verbs

 private:
  template <Napi::Value (Verbs::*verb)(const Info&)> static auto method(const char* name) {
    return Verbs::InstanceMethod(name, &Verbs::template enter<verb>);
  }
  template <Napi::Value (Verbs::*verb)(const Info&)> Napi::Value enter(const Info& info) {
    return border(info.Env(), [&] { return (this->*verb)(info); });
  }
  static double number(const Info& info, std::size_t i) { return info[i].As<Napi::Number>().DoubleValue(); }
  Napi::Value ticket(std::uint64_t t) { return Napi::Number::New(this->Env(), static_cast<double>(t)); }
  void open() const {
    if (executor_ == nullptr) throw Error("BackendClosed", "the backend was disposed of");
  }
  // A native failure is reported by the next verb that enqueues work.
  void healthy() const {
    open();
    if (executor_->poisoned()) throw js_error(this->Env(), executor_->failure());
  }

  // find(name, dtypes: number[], ins, inouts): kernel id or -1
  Napi::Value find(const Info& info) {
    open();
    const auto list = info[1].As<Napi::Array>();
    std::vector<DType> dtypes;
    for (std::uint32_t i = 0; i < list.Length(); ++i) dtypes.push_back(static_cast<DType>(list.Get(i).As<Napi::Number>().Uint32Value()));
    const auto id = registry_->find(info[0].As<Napi::String>().Utf8Value(), dtypes, static_cast<std::int32_t>(number(info, 2)), static_cast<std::int32_t>(number(info, 3)));
    return Napi::Number::New(info.Env(), id);
  }

  Napi::Value attributes(const Info& info) {
    open();
    return Napi::String::New(info.Env(), registry_->at(number(info, 0)).kernel->attributes);
  }

  Napi::Value supported(const Info& info) {
    open();
    const auto found = registry_->supported(info[0].As<Napi::String>().Utf8Value());
    auto list = Napi::Array::New(info.Env(), found.size());
    for (std::uint32_t i = 0; i < found.size(); ++i) list.Set(i, found[i]);
    return list;
  }

  // reserve(place, bytes): memory id
  Napi::Value reserve(const Info& info) {
    open();
    const auto place = static_cast<std::int32_t>(number(info, 0));
    const auto take = [&] { return Napi::Number::New(info.Env(), memories_.add(device_->reserve(place, number(info, 1), memories_.reserved()))); };
    if (executor_->idle()) return take();
    try {
      return take();
    } catch (const Error& e) {
      if (e.code() != "OutOfMemory" && e.code() != "MemoryHeld") throw;
    }
    executor_->drain();  // memory freed behind running work is given back only now
    return take();
  }

  // view(memory, offset, bytes): its own bytes, the same ArrayBuffer until it is released; null where the host cannot see them
  Napi::Value view(const Info& info) {
    open();
    void* data = memories_.locate(number(info, 0), number(info, 1), number(info, 2));
    const auto id = static_cast<std::size_t>(number(info, 0));
    if constexpr (requires(const Reservation& r) { device_->visible(r); }) {
      const Reservation& r = memories_.all()[id];
      if (device_->visible(r)) return views_.of(info.Env(), id, data, static_cast<std::size_t>(number(info, 2)));
    }
    return info.Env().Null();
  }

  Napi::Value release(const Info& info) {
    open();
    const Reservation r = memories_.remove(number(info, 0));
    views_.detach(info.Env(), static_cast<std::size_t>(number(info, 0)));
    if (executor_->idle()) {
      device_->release(r);
    } else {
      Command* c = blank(CommandKind::free);
      c->reservation = r;
      executor_->push(c);
    }
    return info.Env().Undefined();
  }

  Napi::Value launch(const Info&) {
    healthy();
    Command* c = executor_->take();
    try {
      decode(numbers_, *registry_, &memories_, *c);
      equip(c->call);
      const std::size_t needed = device_->workspace(*c->kernel, c->call);
      if (needed > c->call.workspace_bytes)
        throw Error("SmallWorkspace", std::string(c->kernel->name) + " needs a workspace of " + std::to_string(needed) + " bytes, got " +
                                          std::to_string(c->call.workspace_bytes) + ": ask workspace() with the same shapes");
    } catch (...) {
      executor_->give_back(c);
      throw;
    }
    ++launches_;
    return ticket(executor_->push(c));
  }

  Napi::Value workspace(const Info& info) {
    open();
    decode(numbers_, *registry_, nullptr, query_);
    equip(query_.call);
    return Napi::Number::New(info.Env(), static_cast<double>(device_->workspace(*query_.kernel, query_.call)));
  }

  // copy(to memory, to offset, from memory, from offset, bytes, queue): ticket
  Napi::Value copy(const Info& info) {
    healthy();
    const double bytes = number(info, 4);
    void* to = memories_.locate(number(info, 0), number(info, 1), bytes);
    const void* from = memories_.locate(number(info, 2), number(info, 3), bytes);
    Command* c = blank(CommandKind::copy);
    c->to = to;
    c->from = from;
    c->bytes = static_cast<std::size_t>(bytes);
    c->queue = static_cast<std::int32_t>(number(info, 5));
    return ticket(executor_->push(c));
  }

  // wait(queue, other queue, ticket): what is enqueued on `queue` from now on starts after the other's ticket
  Napi::Value wait(const Info& info) {
    healthy();
    Command* c = blank(CommandKind::wait);
    c->queue = static_cast<std::int32_t>(number(info, 0));
    c->other = static_cast<std::int32_t>(number(info, 1));
    c->until = static_cast<std::uint64_t>(number(info, 2));
    executor_->push(c);
    return info.Env().Undefined();
  }

  // write(memory, offset, bytes: Uint8Array)
  Napi::Value write(const Info& info) {
    healthy();
    const auto view = info[2].As<Napi::Uint8Array>();
    const std::size_t bytes = view.ByteLength();
    void* to = memories_.locate(number(info, 0), number(info, 1), static_cast<double>(bytes));
    if (bytes == 0) return info.Env().Undefined();
    // A device whose work outlives its commands is never written to directly.
    if constexpr (!requires { D::stages_always; }) {
      if (executor_->idle()) {
        device_->copy(to, view.Data(), bytes, CommandKind::write);
        executor_->unstaged(bytes);
        return info.Env().Undefined();
      }
    }
    Command* c = blank(CommandKind::write);
    c->to = to;
    c->bytes = bytes;
    c->staging = executor_->stage(view.Data(), bytes);
    executor_->push(c);
    return info.Env().Undefined();
  }

  // read(memory, offset, bytes): Promise<ArrayBuffer>
  Napi::Value read(const Info& info) {
    open();
    const double bytes = number(info, 2);
    const void* from = memories_.locate(number(info, 0), number(info, 1), bytes);
    auto buffer = Napi::ArrayBuffer::New(info.Env(), static_cast<std::size_t>(bytes));
    Command* c = blank(CommandKind::read);
    c->to = buffer.Data();
    c->from = from;
    c->bytes = buffer.ByteLength();
    executor_->rest();
    return await(c, Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1));
  }

  Napi::Value reserved(const Info& info) { return Napi::Number::New(info.Env(), static_cast<double>(memories_.reserved())); }

  Napi::Value counters(const Info& info) {
    open();
    auto o = Napi::Object::New(info.Env());
    o.Set("launches", static_cast<double>(launches_));
    o.Set("allocations", static_cast<double>(executor_->allocations() + device_->allocations()));
    return o;
  }

  Napi::Value facts(const Info& info) {
    open();
    return device_->facts(info.Env());
  }

  // time(capacity): commands are timed from now on, milliseconds counting from this moment
  Napi::Value time(const Info& info) {
    open();
    executor_->time(static_cast<std::size_t>(number(info, 0)));
    return info.Env().Undefined();
  }

  // timed(): Float64Array of [laps lost], then [kind, ticket, start, end] a command, oldest first; ends the timing. Blocks until the queue
  // is empty.
  Napi::Value timed(const Info& info) {
    open();
    const auto stopwatch = executor_->timed();
    if (stopwatch == nullptr) throw Error("StopwatchStopped", "no stopwatch is running: start it first");
    const std::size_t kept = stopwatch->kept();
    auto list = Napi::Float64Array::New(info.Env(), 1 + 4 * kept);
    double* at = list.Data();
    *at++ = static_cast<double>(stopwatch->lost());
    const auto milliseconds = [&](std::int64_t t) { return static_cast<double>(t - stopwatch->origin()) / 1e6; };
    for (std::size_t i = 0; i < kept; ++i) {
      const auto& lap = stopwatch->at(i);
      *at++ = static_cast<double>(lap.kind);
      *at++ = static_cast<double>(lap.ticket);
      *at++ = milliseconds(lap.start);
      *at++ = milliseconds(lap.end);
    }
    return list;
  }

  // reached(queue, ticket): Promise<void>, once the work of that queue up to the ticket is done
  Napi::Value reached(const Info& info) {
    healthy();
    Command* c = blank(CommandKind::reach);
    c->other = static_cast<std::int32_t>(number(info, 0));
    c->until = static_cast<std::uint64_t>(number(info, 1));
    return await(c, {});
  }

  // tune(memory, offset, bytes): Promise<void>; measures what is to be chosen by measurement, in that scratch
  Napi::Value tune(const Info& info) {
    healthy();
    const double bytes = number(info, 2);
    void* scratch = memories_.locate(number(info, 0), number(info, 1), bytes);
    Command* c = blank(CommandKind::tune);
    c->to = scratch;
    c->bytes = static_cast<std::size_t>(bytes);
    return await(c, {});
  }

  // What was chosen so far, as the device says it.
  Napi::Value algorithms(const Info& info) {
    open();
    if constexpr (requires { device_->algorithms(info.Env()); }) return device_->algorithms(info.Env());
    else return info.Env().Null();
  }

  // adopt(what `algorithms` said): choices made before, from now on
  Napi::Value adopt(const Info& info) {
    open();
    if constexpr (requires { device_->adopt(info[0].As<Napi::Array>()); }) device_->adopt(info[0].As<Napi::Array>());
    return info.Env().Undefined();
  }

  // Blocks until the queue is empty, then throws the failure if there is one; for debug: 'sync' and tests only.
  Napi::Value drain(const Info& info) {
    open();
    executor_->drain();
    healthy();
    return info.Env().Undefined();
  }

  // close(): Promise<void>; the queued work is done first, then memories and the thread are given back.
  Napi::Value close(const Info&) {
    open();
    return await(blank(CommandKind::close), {});
  }

  // At the process's end: skips what is queued, waits for the running kernel.
  Napi::Value stop(const Info& info) {
    shut();
    return info.Env().Undefined();
  }

  Command* blank(CommandKind kind) {
    Command* c = executor_->take();
    c->kind = kind;
    c->queue = 0;
    c->tag = nullptr;
    return c;
  }

  void equip(Call& call) {
    call.threads = device_->threads();
    call.context = device_->context();
  }

  Napi::Value await(Command* c, Napi::Reference<Napi::ArrayBuffer> bytes) {
    if (answers_.pending() == 0) this->Ref();
    const Napi::Value promise = answers_.expect(this->Env(), *c, std::move(bytes));
    executor_->push(c);
    return promise;
  }

  static void on_exit(void* self) { static_cast<Verbs*>(self)->shut(); }

  void complete(Napi::Env env) {
    const Napi::HandleScope scope(env);
    if (executor_ == nullptr) return;
    const bool waited = answers_.pending() > 0;
    bool closed = false;
    for (Command *next, *c = executor_->completed(); c != nullptr; c = next) {
      next = c->next;
      const bool closes = c->kind == CommandKind::close;
      answers_.answer(env, *c, c->failed && !closes ? &executor_->failure() : nullptr);
      closed = closed || closes;
      executor_->give_back(c);
    }
    if (closed) shut();
    if (waited && answers_.pending() == 0) this->Unref();
  }

  // Ends the thread, gives memories back; any number of times.
  void shut() {
    if (executor_ == nullptr) return;
    if constexpr (requires { device_->interrupt(); }) device_->interrupt();
    executor_->stop();
    if constexpr (requires { device_->quiesce(); }) device_->quiesce();
    executor_.reset();
    views_.detach_all(this->Env());
    for (const Reservation& r : memories_.all())
      if (r.data != nullptr) device_->release(r);
    memories_ = {};
    registry_.reset();
    device_.reset();
    answers_.close();
  }

  Napi::ObjectReference packet_;
  const double* numbers_ = nullptr;
  std::unique_ptr<D> device_;
  std::unique_ptr<Registry> registry_;
  std::unique_ptr<Executor<D>> executor_;
  Answers answers_;
  Memories memories_;
  Views views_;
  Command query_;
  std::uint64_t launches_ = 0;
};

}  // namespace lomo
