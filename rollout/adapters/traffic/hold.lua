-- Requests of a backend wait here while its only server restarts.
--
-- The bound is kept here, by the proxy itself: a hold ends by itself after its seconds, and beyond its most waiting requests the others are
-- answered 503 at once. Whoever asked for the hold may have died meanwhile.
--
-- In haproxy.cfg:   global      lua-load /path/to/hold.lua        (not lua-load-per-thread: each thread would have holds of its own)
--                   backend X   http-request lua.rollout_hold
-- On the stats socket (level admin): rollout-hold X SECONDS MOST, rollout-let-go X, rollout-holds.
-- A reload forgets a hold: the new process lets everything through.

local STEP_MIN_MS = 20 -- how late a request goes on at least, when few wait
local STEP_MAX_MS = 250
local WAITING_PER_MS = 8 -- so many that wait lengthen the step by one millisecond, so that thousands don't keep the proxy busy
-- The first that came goes first, and who comes now goes behind them: the server has just started, and is slow for everybody when it gets
-- all at once. A next one goes when an earlier one is answered, so that a cold server sets the pace. What stays open for long (a long-poll) is
-- never answered so soon: as many as were under way before the hold may be again, and with each second some more.
local UNDER_WAY_MIN = 12
local UNDER_WAY_MORE_PER_S = 10
local LET_GO_PER_S = 250
local LET_GO_PER_ARRIVAL = 4 -- or so many times as fast as they came, if that is more
local BEHIND_S = 10 -- after so long nobody goes behind the others any more: they are not let go as fast as others come
local LET_GO_STEP_MS = 5
local SILENT_S = 2 * STEP_MAX_MS / 1000 -- who has not looked for so long isn't waited for by those behind
local SWEEP_MS = 100
local GONE_S = 2 -- who has not looked for so long has hung up: HAProxy drops its coroutine without a word

local backends = {} -- name -> what is known of it

local function now_s()
    local now = core.now()
    return now.sec + now.usec / 1e6
end

local function backend_of(name)
    if backends[name] == nil then
        -- hold: who comes has to wait; ended: the last that is over, whose requests may still be going on one after the other
        backends[name] = { passed = 0, waiting = {}, waiting_count = 0, waiting_max = 0, shed = 0, late = 0, hold = nil, ended = nil, next = 0 }
    end
    return backends[name]
end

local function end_hold(backend, at_s)
    local hold = backend.hold
    hold.ended_s = at_s
    hold.per_s = math.max(LET_GO_PER_S, LET_GO_PER_ARRIVAL * (backend.next + 1 - hold.first) / math.max(1, at_s - hold.since_s))
    backend.hold, backend.ended = nil, hold
end

local function end_if_over(backend)
    if backend.hold ~= nil and now_s() >= backend.hold.until_s then
        end_hold(backend, backend.hold.until_s)
    end
end

local function step_ms(backend)
    return math.min(STEP_MAX_MS, STEP_MIN_MS + backend.waiting_count // WAITING_PER_MS)
end

local function leave(backend, me)
    if backend.waiting[me] ~= nil then
        backend.waiting[me] = nil
        backend.waiting_count = backend.waiting_count - 1
    end
end

local function servers_of(name)
    local up, under_way = false, 0
    for _, server in pairs(core.backends[name].servers) do
        local seen = server:get_stats()
        under_way = under_way + seen.scur
        up = up or seen.status:find("^UP") ~= nil or seen.status == "no check"
    end
    return up, under_way
end

-- Whether *me* may go on, of those who waited for *hold* or came behind them.
local function may_go(name, backend, hold, me)
    while hold.head < me and now_s() - (backend.waiting[hold.head] or 0) > SILENT_S do
        hold.head = hold.head + 1
    end
    local since_s = now_s() - hold.ended_s
    if hold.head < me or me - hold.first > since_s * hold.per_s then
        return false
    end
    local up, under_way = servers_of(name)
    if not up and now_s() < hold.until_s then
        return false -- within its time a hold lets nobody go to a server that is down
    end
    return under_way < math.max(UNDER_WAY_MIN, hold.usual) + UNDER_WAY_MORE_PER_S * since_s
end

local function refuse(txn, seconds)
    local reply = txn:reply()
    reply:set_status(503, "Service Unavailable")
    reply:add_header("Content-Type", "application/json")
    reply:add_header("Access-Control-Allow-Origin", "*")
    reply:add_header("Retry-After", string.format("%d", math.max(1, math.ceil(seconds))))
    reply:set_body('{"errcode":"M_UNKNOWN","error":"The server is restarting, and too many requests wait for it already"}')
    txn:done(reply)
end

core.register_action("rollout_hold", { "http-req" }, function(txn)
    local name = txn.f:be_name()
    local backend = backend_of(name)
    backend.passed = backend.passed + 1
    end_if_over(backend)
    local hold, ended = backend.hold, backend.ended
    local held = hold ~= nil
    if not held then
        if ended == nil or backend.waiting_count == 0 or backend.waiting_count >= ended.most or now_s() - ended.ended_s > BEHIND_S then
            return
        end
        hold = ended
    elseif backend.waiting_count >= hold.most then
        backend.shed = backend.shed + 1
        return refuse(txn, hold.until_s - now_s())
    end
    backend.next = backend.next + 1
    local me = backend.next
    backend.waiting_count = backend.waiting_count + 1
    backend.waiting[me] = now_s()
    if held then
        backend.waiting_max = math.max(backend.waiting_max, backend.waiting_count)
    end
    while backend.hold == hold do
        backend.waiting[me] = now_s()
        core.msleep(step_ms(backend))
        end_if_over(backend)
    end
    if held and hold.ended_s == hold.until_s then
        backend.late = backend.late + 1
    end
    while not may_go(name, backend, hold, me) do
        backend.waiting[me] = now_s()
        core.msleep(math.min(STEP_MAX_MS, LET_GO_STEP_MS + (me - hold.head)))
    end
    leave(backend, me)
end)

-- Ends what is over, and forgets who has hung up.
core.register_task(function()
    while true do
        for _, backend in pairs(backends) do
            end_if_over(backend)
            for me, looked_s in pairs(backend.waiting) do
                if now_s() - looked_s > GONE_S then
                    leave(backend, me)
                end
            end
        end
        core.msleep(SWEEP_MS)
    end
end)

local function answer(applet, text)
    applet:send(text .. "\n")
end

core.register_cli({ "rollout-hold" }, "rollout-hold BACKEND SECONDS MOST : let new requests wait", function(applet, _, name, seconds, most)
    local hold_s, hold_max = tonumber(seconds), tonumber(most)
    if name == nil or hold_s == nil or hold_max == nil then
        return answer(applet, "rollout-hold BACKEND SECONDS MOST\n")
    end
    if core.backends[name] == nil then
        return answer(applet, "No such backend.\n")
    end
    local backend = backend_of(name)
    end_if_over(backend)
    if backend.hold == nil then
        local _, usual = servers_of(name)
        local first = backend.next + 1
        backend.hold = { since_s = now_s(), until_s = now_s() + hold_s, most = hold_max, first = first, head = first, usual = usual }
        backend.waiting_max = 0
    end
    answer(applet, "")
end)

core.register_cli({ "rollout-let-go" }, "rollout-let-go BACKEND             : let what waits go on, once its server is up", function(applet, _, name)
    if name == nil or core.backends[name] == nil then
        return answer(applet, "No such backend.\n")
    end
    local backend = backend_of(name)
    end_if_over(backend)
    if backend.hold ~= nil then
        end_hold(backend, now_s())
    end
    answer(applet, "")
end)

core.register_cli({ "rollout-holds" }, "rollout-holds                      : what waits", function(applet)
    local lines = { "# backend,passed,held_for_s,waiting,waiting_max,shed,late" }
    for name, backend in pairs(backends) do
        local held = backend.hold ~= nil and string.format("%.3f", now_s() - backend.hold.since_s) or ""
        local counts = { backend.passed, held, backend.waiting_count, backend.waiting_max, backend.shed, backend.late }
        lines[#lines + 1] = name .. "," .. table.concat(counts, ",")
    end
    answer(applet, table.concat(lines, "\n") .. "\n")
end)
