"""The rules that matter, and the tests that hold them."""

from __future__ import annotations

from typing import Final

from tests.mutation.model import Mutation

MUTATIONS: Final = (
    # ── who may see what ─────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="frame-rights",
        rule="permission to view is checked again once the picture was fetched",
        file="gateway/http/streams.py",
        before="if not self._context.authorization.may_view(self._auth.current(caller), owner, stream):",
        after="if False:",
        unit=(
            "tests/unit/gateway/test_http_pictures.py::test_who_leaves_the_organization_while_a_picture_is_awaited_gets_nothing",
        ),
        e2e=("tests/e2e/test_pictures.py::test_a_stream_that_changes_hands_while_its_frame_is_awaited_is_not_shown",),
    ),
    Mutation(
        name="alert-picture-rights",
        rule="permission to view is checked again once the picture of an alert was fetched",
        file="gateway/http/alerts.py",
        before="if not self._context.authorization.may_view_stored_picture(\n",
        after="if False and self._context.authorization.may_view_stored_picture(\n",
        unit=(
            "tests/unit/gateway/test_http_pictures.py::test_who_leaves_the_organization_while_a_picture_is_awaited_gets_nothing",
        ),
        e2e=("tests/e2e/test_pictures.py::test_a_session_that_ends_while_a_picture_is_awaited_is_shown_nothing",),
    ),
    Mutation(
        name="stream-owner",
        rule="a stream of another user cannot be registered",
        file="router/streams/claims.py",
        before="        if foreign and not claim.granted:\n",
        after="        if False:\n",
        unit=("tests/unit/router/streams/test_claims.py::test_another_user_is_refused_while_the_camera_is_there",),
        e2e=(
            "tests/faults/processes/test_two_gateways.py::test_another_users_stream_is_unauthorized_on_the_other_gateway_too",
        ),
    ),
    Mutation(
        name="mesh-end",
        rule="frames that a former router requested end when nobody wants them any more",
        file="router/streams/routing.py",
        before="if stream.forward is None and not wanted and not stream.forwarding and not stream.floor:",
        after="if stream.forward is None and not wanted and not stream.floor:",
        unit=(
            "tests/unit/router/streams/test_routing.py::test_what_a_former_router_requested_and_nobody_wants_ends_when_all_have_reported",
        ),
        e2e=(
            "tests/e2e/test_frame_mesh.py::test_a_viewer_that_left_while_the_router_was_away_costs_no_frames_after_its_return",
        ),
    ),
    Mutation(
        name="origin-list",
        rule="a cookie is used only from a page of the list or of the gateway itself",
        file="gateway/requests/origins.py",
        before="return page is not None and (_is_listed(page, allowed_origins) or is_own(page, hosts, secure=secure))",
        after="return page is not None",
        unit=("tests/unit/gateway/test_origins.py::test_what_only_looks_like_one_is_not",),
        e2e=("tests/e2e/test_browser.py::test_a_page_uses_the_cookie_of_its_users_session_until_he_signs_out",),
    ),
    Mutation(
        name="origin-null",
        rule="`Origin: null` is never allowed, in a handshake or over HTTP",
        file="gateway/requests/sign_in.py",
        before="if _may_use_cookie(pages[0], sender, settings)",
        after="if pages[0] == 'null' or _may_use_cookie(pages[0], sender, settings)",
        unit=("tests/unit/gateway/test_sign_in.py::test_the_origin_decides_where_there_is_one",),
        e2e=("tests/e2e/edge/test_origins.py::test_a_cookie_of_a_page_that_is_not_listed_is_ignored",),
    ),
    Mutation(
        name="no-origin",
        rule="over HTTP, a cookie without an `Origin` is used only where the browser's headers show an allowed page",
        file="gateway/requests/sign_in.py",
        before="    if handshake:\n",
        after="    if not handshake:\n        return None\n    if handshake:\n",
        unit=(
            "tests/unit/gateway/test_sign_in.py::test_a_request_without_an_origin_needs_the_browsers_word_for_the_page",
        ),
        e2e=(
            "tests/e2e/edge/test_origins.py::test_a_request_without_an_origin_uses_the_cookie_only_where_the_browser_vouches_for_the_page",
        ),
    ),
    Mutation(
        name="own-origin",
        rule="only a trusted proxy may say by which name the client reached the gateway",
        file="gateway/requests/addresses.py",
        before="    if is_trusted(peer, trusted):\n        if host",
        after="    if True:\n        if host",
        unit=(
            "tests/unit/gateway/test_addresses.py::test_a_trusted_proxy_says_under_which_name_the_client_came_and_nobody_else",
        ),
        e2e=("tests/e2e/edge/test_origins.py::test_only_a_trusted_proxy_says_what_the_gateways_own_origin_is",),
    ),
    Mutation(
        name="first-auth",
        rule="the first auth message is handled as a sign-in, even after a sign-in at the upgrade",
        file="gateway/client/protocol.py",
        before="        if self._auth_received:\n",
        after="        if True:\n",
        unit=(
            "tests/unit/gateway/test_first_auth.py::test_the_first_auth_of_who_signed_in_at_the_upgrade_is_answered_like_a_first_one",
        ),
        e2e=("tests/e2e/test_readme_client.py::test_the_client_of_readme_shows_pictures_that_move",),
    ),
    Mutation(
        name="former-identity",
        rule="after the first auth message a socket keeps nothing of its former identity",
        file="gateway/client/handler.py",
        before="                self._leave_identity()  # the end",
        after="                # the end",
        unit=("tests/unit/gateway/test_first_auth_moves.py::test_while_the_token_is_looked_up_the_socket_is_nobodys",),
        e2e=(
            "tests/e2e/identity/test_first_auth.py::test_a_user_at_his_limit_is_counted_by_the_first_auth_and_not_by_a_cookie",
        ),
    ),
    Mutation(
        name="renewed-identity",
        rule="after the first auth message the socket lives and ends with the session of that token",
        file="gateway/client/handler.py",
        before="            self._context.presence.add(self, identity, time.time())\n",
        after="            if self.protocol.pending is None and self.protocol._auth_received:\n                return\n"
        "            self._context.presence.add(self, identity, time.time())\n",
        unit=("tests/unit/gateway/test_first_auth_moves.py::test_while_the_token_is_looked_up_the_socket_is_nobodys",),
        e2e=("tests/e2e/identity/test_first_auth.py::test_the_end_of_the_former_session_does_not_end_the_socket",),
    ),
    Mutation(
        name="session-ended",
        rule="the end of a session closes its sockets",
        file="gateway/presence.py",
        before="                if found is None or found.user_id != identity.user_id:\n"
        "                    ended.append(client)",
        after="                if found is None:\n                    continue\n"
        "                if found.user_id != identity.user_id:\n                    ended.append(client)",
        unit=("tests/unit/gateway/test_revalidation.py::test_whose_session_ended_is_told_once_and_others_are_not",),
        e2e=("tests/e2e/identity/test_vanishing.py::test_the_only_user_who_signs_out_is_out",),
    ),
    # ── who is it? ───────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="row-level-security",
        rule="a table whose rows may be hidden ends no session",
        file="identity/schema/plan.py",
        before='            if hidden.table != "verification":\n',
        after="            if False:\n",
        unit=(
            "tests/integration/identity/test_vanishing.py::test_row_level_security_that_is_switched_on_is_no_verdict_and_is_named_with_its_remedy",
        ),
        e2e=("tests/e2e/identity/test_vanishing.py::test_sockets_stay_strangers_come_back_later_and_health_says_why",),
    ),
    Mutation(
        name="emptied-table",
        rule="a table that was emptied a moment ago does not end sessions yet",
        file="identity/sources/continuity.py",
        before="waited_s >= EMPTIED_S:",
        after="waited_s >= 0:",
        unit=(
            "tests/unit/identity/test_continuity.py::test_the_same_tables_in_use_are_accepted_and_emptied_ones_after_a_moment",
        ),
        e2e=("tests/e2e/identity/test_vanishing.py::test_a_table_that_is_emptied_and_filled_again_throws_nobody_out",),
    ),
    Mutation(
        name="another-table",
        rule="a replaced table without the known sessions ends no session",
        file="identity/sources/continuity.py",
        before="        if state.location != self._state.location:\n            if evidence.seen or",
        after="        if state.location != self._state.location:\n            if True or",
        unit=(
            "tests/unit/identity/test_continuity.py::test_another_place_with_none_of_them_is_accepted_late_and_only_if_it_is_in_use",
        ),
        e2e=("tests/e2e/identity/test_vanishing.py::test_sockets_stay_strangers_come_back_later_and_health_says_why",),
    ),
    Mutation(
        name="secret-signs-its-own",
        rule="HS256, HS384 and HS512 are only for the secret, and all other algorithms only for public keys",
        file="identity/sources/jwt.py",
        before="            if is_symmetric(token):\n",
        after="            if self._secret is not None:\n",
        unit=("tests/unit/identity/test_jwks.py::test_a_secret_beside_the_issuers_keys_is_for_its_own_tokens_only",),
        e2e=("tests/e2e/identity/test_credentials_taken.py::test_each_kind_of_token_is_taken_in_each_place",),
    ),
    Mutation(
        name="ticket-fault",
        rule="a ticket that the database cannot delete is not treated as invalid",
        file="identity/sources/session_store.py",
        before="                self._plans.expire()\n            raise\n",
        after="                self._plans.expire()\n            return {}\n",
        unit=(
            "tests/integration/identity/test_postgres_tickets.py::test_a_database_that_is_read_only_says_nothing_about_a_ticket_and_says_so_once",
        ),
        e2e=("tests/e2e/identity/test_vanishing.py::test_a_good_ticket_at_a_read_only_database_is_to_come_again",),
    ),
    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="term-at-router",
        rule="the router drops frames of a camera that was taken over",
        file="router/streams/claims.py",
        before="state.term < stream.term",
        after="False",
        unit=("tests/unit/router/streams/test_claims.py::test_a_hold_under_an_older_term_is_revoked",),
        e2e=(
            "tests/faults/processes/test_two_gateways.py::test_a_gateway_that_hung_while_its_camera_moved_sends_nothing_old",
        ),
    ),
    Mutation(
        name="alerts-overtake",
        rule="alerts overtake frames that wait",
        file="gateway/hub/outbound_queue.py",
        before="        if self._messages:\n            message = self._messages.popleft()",
        after="        if self._messages and not self._frames:\n            message = self._messages.popleft()",
        unit=("tests/unit/gateway/test_outbound_queue.py::test_messages_keep_their_order_and_go_ahead_of_frames",),
        e2e=("tests/e2e/test_slow_viewers.py",),
    ),
    Mutation(
        name="newest-wins",
        rule="a newer frame replaces the one that waits",
        file="gateway/hub/subscription.py",
        before="        self.drop_waiting(reason)\n        self.waiting_frame = frame\n",
        after="        if self.waiting_frame is not None:\n            return\n        self.waiting_frame = frame\n",
        unit=("tests/unit/gateway/test_outbound_queue.py::test_of_the_frames_that_wait_the_newest_wins",),
        e2e=("tests/e2e/test_slow_viewers.py",),
    ),
    Mutation(
        name="burst-ends",
        rule="the last frame over a viewer's rate is sent when the rate permits it",
        file="gateway/hub/outbound_queue.py",
        before="        if reason is not None:\n            self._keep(",
        after="        if reason is DropReason.RATE:\n            subscription.drop(reason)\n            return False\n"
        "        if reason is not None:\n            self._keep(",
        unit=("tests/unit/gateway/test_outbound_queue.py::test_the_last_frame_over_the_rate_waits_for_its_turn",),
        e2e=("tests/e2e/test_frame_rates.py",),
    ),
    Mutation(
        name="burst-ends-elsewhere",
        rule="the last frame over the rate of another gateway or bridge is sent when the rate permits it",
        file="gateway/hub/bus_sampler.py",
        before="                self.picture, self.other = frame, None\n",
        after="                pass\n",
        unit=("tests/unit/gateway/test_bus_sampler.py::test_each_receiver_gets_the_last_frame_of_a_burst_at_its_time",),
        e2e=("tests/e2e/test_frame_rates.py",),
    ),
    Mutation(
        name="frames-come-once",
        rule="a frame that another gateway sends again goes to nobody twice, and nobody misses it",
        file="gateway/hub/delivery.py",
        before="            if frame.frame_id > stream.last_frame_id:\n                self._deliver(",
        after="            if True:\n                self._deliver(",
        unit=(
            "tests/unit/gateway/test_hub_viewers.py::test_a_frame_that_comes_again_is_for_those_who_wait_for_their_first_and_is_missed_by_nobody",
        ),
        e2e=(
            "tests/e2e/test_frame_mesh.py::test_no_frame_for_a_gateway_or_bridge_of_this_machine_goes_through_the_router",
        ),
    ),
    Mutation(
        name="picture-stays",
        rule="a frame that is no picture does not replace the newest picture",
        file="gateway/hub/delivery.py",
        before="        if frame.is_key_picture:\n            stream.newest, ",
        after="        if True:\n            stream.newest, ",
        unit=(
            "tests/unit/gateway/test_hub_notices.py::test_what_is_no_picture_never_becomes_the_newest_frame",
            "tests/unit/gateway/test_hub_notices.py::test_what_is_no_picture_replaces_no_newest_frame_of_a_camera_elsewhere",
        ),
        e2e=("tests/e2e/test_mjpeg.py::test_what_is_no_picture_is_no_part_and_hides_no_picture",),
    ),
    Mutation(
        name="frame-fields",
        rule="fields of a frame that the protocol does not name are passed on",
        file="gateway/wire.py",
        before='    fields |= {"type": "video-frame", "data": bytes(data), "more": more}\n',
        after='    fields |= {"type": "video-frame", "data": bytes(data), "more": b""}\n',
        unit=("tests/unit/gateway/test_wire.py::test_what_a_frame_brings_beside_its_own_fields_is_kept_as_it_came",),
        e2e=("tests/e2e/test_messages.py::test_fields_of_a_frame_that_are_not_named_reach_json_viewers_as_they_came",),
    ),
    Mutation(
        name="alert-fields",
        rule="fields of an alert that the protocol does not name are passed on",
        file="common/alerts/model.py",
        before="        more=draft.more,\n",
        after="        more=None,\n",
        unit=("tests/unit/common/test_alert_model.py::test_fields_that_the_protocol_does_not_name_are_passed_on",),
        e2e=("tests/e2e/test_messages.py::test_fields_of_an_alert_that_are_not_named_reach_everybody_who_has_it",),
    ),
    Mutation(
        name="take-over-closes",
        rule="a take-over closes the older camera's socket, also on another gateway",
        file="gateway/hub/registry.py",
        before="        publication.publisher.on_taken_over(stream_id)\n        self._close_if_unused(stream)\n",
        after="        self._close_if_unused(stream)\n",
        unit=(
            "tests/unit/gateway/test_hub_publishers.py::test_a_revoked_camera_is_told_and_viewers_wait_for_the_other_gateway",
        ),
        e2e=(
            "tests/faults/processes/test_two_gateways.py::test_a_take_over_across_gateways_leaves_viewers_and_frame_ids_in_order",
        ),
    ),
    Mutation(
        name="status-to-cameras",
        rule="a camera that consumes anything gets the status of its stream",
        file="gateway/hub/delivery.py",
        before="        if stream.publication is not None and stream.publication.wants_status:\n",
        after="        if False:\n",
        unit=("tests/unit/gateway/test_hub_notices.py::test_a_camera_that_wants_the_status_gets_each_once",),
        e2e=("tests/e2e/test_messages.py::test_a_camera_that_consumes_anything_gets_the_status",),
    ),
    Mutation(
        name="rights-before-304",
        rule="permission to view is checked before a 304, too",
        file="gateway/http/streams.py",
        before=(
            "        # The stream's owner, or the caller's permission, may have changed while the frame was awaited.\n"
        ),
        after=(
            "        if frame is not None and frame.is_picture:\n"
            "            tag = entity_tag(frame.stream_id, frame.term, frame.frame_id)\n"
            "            if (known := not_modified_response(request, tag)) is not None:\n"
            "                return known\n"
        ),
        unit=(
            "tests/unit/gateway/test_http_pictures.py::test_a_stream_that_changes_hands_while_its_picture_is_awaited_shows_nothing",
        ),
        e2e=("tests/e2e/test_pictures.py::test_a_stream_that_changes_hands_while_its_frame_is_awaited_is_not_shown",),
    ),
    Mutation(
        name="stranger-stays",
        rule="a frame before `auth` is discarded and answered, and does not close the socket",
        file="gateway/client/frame_reader.py",
        before="self.max_bytes < length <= self.longest_bytes",
        after="False",
        unit=("tests/unit/gateway/test_frame_reader.py",),
        e2e=(
            "tests/contract/protocol/test_authentication.py::test_anything_but_auth_before_authentication_is_refused_and_the_socket_stays",
        ),
    ),
    Mutation(
        name="fragments-limit",
        rule="the fragments of a message count together against the largest message",
        file="gateway/client/frame_reader.py",
        before="fits = self._joined + length <= self.max_bytes",
        after="fits = True",
        unit=("tests/unit/gateway/test_frame_reader.py::test_fragments_over_the_limit_are_refused_by_the_protocol",),
        e2e=(
            "tests/contract/rfc6455/test_limits.py::test_fragments_count_together_and_close_with_1009_where_they_pass_the_limit",
        ),
    ),
    # ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="raise-again",
        rule="a bridge sends alerts that a router accepted just before it was killed again to the next router",
        file="mlbridge/alert_lane.py",
        before="        again = self._accepted.joined(self._slot, self._router.epoch, time.monotonic())\n",
        after="        again = self._accepted.joined(self._slot, self._router.epoch, time.monotonic())[:0]\n",
        unit=("tests/unit/mlbridge/test_alert_sender.py",),
        e2e=("tests/e2e/test_alerts_once.py",),
    ),
    Mutation(
        name="alerts-before-interest",
        rule="a gateway gets the alerts that were accepted between its look-up of a stream and its interest in it",
        file="router/handler.py",
        before="                self.alerts.send_missed(member, body)\n",
        after="",
        unit=(
            "tests/unit/router/test_handler.py::test_whoever_looked_a_stream_up_gets_each_alert_after_the_reply_however_late_its_interest_comes",
        ),
        e2e=(
            "tests/e2e/test_late_reports.py::test_an_alert_overtakes_the_interest_on_another_connection_to_nats",
            "tests/e2e/test_late_reports.py::test_a_viewer_gets_each_alert_after_the_answer_once_and_none_before",
        ),
    ),
    Mutation(
        name="alerts-of-own-streams",
        rule="the gateway of a publisher gets every alert of the stream from the grant on",
        file="router/streams/interests.py",
        before="        if stream.gateway is not None:\n            members",
        after="        if stream.gateway is not None and stream.wants_alerts:\n            members",
        unit=(
            "tests/unit/router/streams/test_interests.py::test_the_gateway_of_the_camera_gets_each_alert_from_the_grant_on_and_counts_where_it_wants_it",
        ),
        e2e=(
            "tests/e2e/test_late_reports.py::test_a_viewer_at_the_gateway_of_the_camera_misses_none_either",
            "tests/e2e/test_late_reports.py::test_a_camera_misses_none_after_its_answer",
        ),
    ),
    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="curve-allow-list",
        rule="a bridge whose key is not allowed cannot connect",
        file="common/bus/zeromq/curve.py",
        before="        return self._keys.get(key)\n",
        after='        return self._keys.get(key) or "anybody"\n',
        unit=("tests/unit/common/bus/zeromq/test_curve.py",),
        e2e=("tests/e2e/test_remote_bridges.py::test_wrong_keys_get_nothing_and_are_named_in_both_logs",),
    ),
    # ── the ML service ───────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="ml-back-off",
        rule="frames of a stream that the ML service refuses are sent less often",
        file="mlbridge/scheduler.py",
        before="                self._streams[request.stream].health.refuse(request.size_bytes, now)",
        after="                pass",
        unit=("tests/unit/mlbridge/test_refusals.py::test_a_refused_stream_waits_and_its_next_frame_goes_apart",),
        e2e=(
            "tests/integration/mlbridge/test_poison.py::test_what_may_be_the_services_fault_is_found_to_be_the_frames_while_others_are_answered",
        ),
    ),
    # ── many machines ────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="lease-ends",
        rule="a router steps down 10 s after the last write of its lease that succeeded",
        file="router/slots/lease.py",
        before="if state.role is not Role.NONE and now - state.confirmed_at >= STEP_DOWN_S:",
        after="if state.role is not Role.NONE and now - state.confirmed_at >= 10 * STEP_DOWN_S:",
        unit=("tests/unit/router/slots/test_lease.py::test_a_reply_that_comes_too_late_changes_nothing",),
        e2e=(
            "tests/integration/router/slots/test_faults.py::test_without_any_server_routers_step_down_and_are_back_with_the_servers",
        ),
    ),
    Mutation(
        name="lease-epoch-rises",
        rule="whoever takes a slot has a higher epoch than all that it knows",
        file="router/slots/lease.py",
        before="Purpose.TAKE, max(by_clock, state.highest + 1), now)",
        after="Purpose.TAKE, by_clock, now)",
        unit=("tests/unit/router/slots/test_lease_explored.py::test_no_single_fault_at_any_time_breaks_a_promise",),
        e2e=(
            "tests/integration/router/slots/test_faults.py::test_a_released_slot_is_taken_with_a_later_epoch_whatever_the_clock_says",
        ),
    ),
    Mutation(
        name="lease-elsewhere",
        rule="no slot stays on the host of the leases' leader while a router elsewhere can have it",
        file="router/slots/lease.py",
        before="        if self.leader_here and not heir_has_leader:\n",
        after="        if False:\n",
        unit=(
            "tests/unit/router/slots/test_lease.py::test_slots_leave_the_host_that_the_leader_has_moved_to_and_has_stayed_at",
        ),
        e2e=("tests/integration/router/slots/test_faults.py::test_the_slots_are_where_the_leader_of_the_store_is_not",),
    ),
    Mutation(
        name="lease-released",
        rule="a router that ends releases its slots",
        file="router/slots/lease.py",
        before='                commands.append(self._go(slot, state, "", why))\n',
        after="                pass\n",
        unit=("tests/unit/router/slots/test_lease.py::test_a_process_that_ends_is_succeeded_in_the_next_step",),
        e2e=("tests/integration/router/slots/test_faults.py::test_a_router_that_is_ended_has_released_its_slots",),
    ),
    Mutation(
        name="lower-epoch-refused",
        rule="a member obeys no router of a lower epoch than the highest that it has heard",
        file="common/bus/membership.py",
        before="        if self._fenced and envelope.epoch < self.highest_epoch:\n            return []\n",
        after="",
        unit=("tests/unit/common/bus/test_membership.py::test_a_router_that_has_a_successor_is_not_obeyed",),
        e2e=("tests/e2e/test_slots.py::test_the_words_of_a_router_that_has_a_successor_have_no_effect",),
    ),
    Mutation(
        name="unfinished-parts",
        rule="parts of unfinished messages are bounded, all senders together",
        file="common/bus/nats/parts.py",
        before="while self.bytes > MAX_UNFINISHED_BYTES or len(self._unfinished) > MAX_SENDERS:",
        after="while False:",
        unit=("tests/unit/common/bus/nats/test_parts.py::test_unfinished_messages_are_bounded_in_bytes_and_in_number",),
        e2e=("tests/integration/common/bus/nats/test_kv.py::test_parts_without_an_end_are_bounded_whoever_sends_them",),
    ),
    Mutation(
        name="change-of-server",
        rule="what two connections bring while a process changes its NATS server is handled once",
        file="common/bus/nats/overlap.py",
        before="            self._brought[key] -= 1\n            return []\n",
        after="            self._brought[key] -= 1\n",
        unit=(
            "tests/unit/common/bus/nats/test_overlap.py::test_each_message_is_handled_once_and_in_the_order_of_its_sender",
        ),
        e2e=(
            "tests/integration/common/bus/nats/test_homeward.py::test_the_way_back_loses_no_message_and_repeats_none",
        ),
    ),
    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="starter-gone",
        rule="a process ends with its starter",
        file="common/process/starter.py",
        before="                self._gone = bool(poll.poll(0))\n",
        after="                self._gone = False\n",
        unit=("tests/integration/common/test_starter.py::test_the_end_of_an_ancestor_is_seen",),
        e2e=(
            (
                "tests/e2e/test_starting.py::test_however_it_ends_no_process_is_left_and_the_next_start_works"
                "[make, kill -9 of make]"
            ),
        ),
    ),
    Mutation(
        name="home-links",
        rule="links in the home are not followed",
        file="common/home.py",
        before="flags | os.O_NOFOLLOW | os.O_CLOEXEC",
        after="flags | os.O_CLOEXEC",
        unit=("tests/unit/common/test_home.py::test_a_link_in_the_home_is_not_followed",),
        e2e=("tests/e2e/test_commands.py::test_a_process_follows_no_link_in_its_home",),
    ),
    Mutation(
        name="lost-log-lines",
        rule="log lines that cannot be written are counted",
        file="common/log_writer.py",
        before="                    self._dropped += 1\n",
        after="",
        unit=("tests/integration/common/test_log_writer.py::test_without_a_descriptor_lines_are_counted",),
        e2e=("tests/e2e/test_log_output.py::test_lines_that_nobody_can_take_are_counted",),
    ),
    Mutation(
        name="log-raises",
        rule="a log that cannot be written raises no exception",
        file="common/log_writer.py",
        before="self._full or self._closing or self._descriptor is None:",
        after="self._full or self._closing:",
        unit=("tests/integration/common/test_log_writer.py::test_without_a_descriptor_lines_are_counted",),
        e2e=("tests/e2e/test_log_output.py::test_lines_that_nobody_can_take_are_counted",),
    ),
    Mutation(
        name="periodic-goes-on",
        rule="a periodic task goes on after an exception",
        file="common/supervisor.py",
        before="            self._ended(began, error)\n            return\n",
        after="            self._supervisor.failed(self.name, error)\n            return\n",
        unit=("tests/unit/common/test_supervisor.py::test_work_that_raises_is_counted_and_runs_again",),
        e2e=("tests/e2e/test_periodic.py::test_a_periodic_task_that_raises_is_counted_and_goes_on",),
    ),
    Mutation(
        name="passed-sockets",
        rule="the gateway listens on the sockets that the service manager passes",
        file="gateway/listen/port.py",
        before="        self.sockets = take_sockets()\n",
        after="        self.sockets = []\n",
        unit=("tests/unit/gateway/test_port.py::test_a_passed_socket_is_listened_on_and_no_other_is_opened",),
        e2e=(
            "tests/e2e/deploy/test_started_by_a_manager.py::test_connections_made_while_no_gateway_runs_are_served_by_the_next_one",
        ),
    ),
    Mutation(
        name="tls-waits-in-one-place",
        rule="with TLS, what the kernel does not take makes the connection full at once",
        file="gateway/listen/tls_connection.py",
        before="        self._socket.set_write_buffer_limits(high, low)\n",
        after="        pass\n",
        unit=(
            "tests/unit/gateway/test_tls_connection.py::test_what_the_kernel_did_not_take_and_its_limits_are_those_of_the_socket",
        ),
        e2e=(
            "tests/e2e/edge/test_tls.py::test_a_viewer_over_tls_that_did_not_read_gets_few_old_frames_and_then_the_newest",
        ),
    ),
    Mutation(
        name="secret-file",
        rule="a secret whose file is named has the content of that file",
        file="common/settings/secret_files.py",
        before="            values[name] = _content(Path(path))\n",
        after="            _content(Path(path))\n",
        unit=(
            "tests/unit/common/test_secret_files.py::test_a_secret_is_read_from_its_file_without_the_white_space_around",
        ),
        e2e=(
            "tests/integration/deploy/test_compose.py::test_the_scripts_of_the_database_let_watchout_read_sessions_and_no_more",
        ),
    ),
    Mutation(
        name="alive-file",
        rule="the alive file is renewed by the event loop as long as it works",
        file="common/process/alive_file.py",
        before='self._beat = supervisor.current().every(EVERY_S, self._path.touch, "alive file", first_s=0)',
        after="self._path.touch()",
        unit=("tests/unit/common/test_alive_file.py::test_the_loop_renews_the_time_until_it_is_closed",),
        e2e=(
            "tests/integration/deploy/test_kubernetes.py::test_a_router_that_stands_still_is_not_alive_and_one_that_works_is",
        ),
    ),
    Mutation(
        name="liveness",
        rule="in Kubernetes a gateway is not restarted for a router, database or ML service that is away",
        file="deploy/kubernetes/gateway.yaml",
        before="            httpGet: {path: /health/live, port: http}\n",
        after="            httpGet: {path: /health, port: http}\n",
        unit=("tests/integration/deploy/test_kubernetes.py::test_the_probes_wait_longer_than_an_answer_takes",),
        e2e=(
            "tests/integration/deploy/test_kubernetes.py::test_the_probes_ask_what_the_gateway_answers_and_a_lost_router_or_service_restarts_nothing",
        ),
    ),
    Mutation(
        name="ready-when-serving",
        rule="the service manager is told that a process is ready when it lacks nothing",
        file="common/process/readiness.py",
        before="while (missing := await self._look()) is not None and loop.time() < until:",
        after="while (missing := await self._look()) is not None and loop.time() < 0:",
        unit=("tests/unit/common/test_service_manager.py::test_ready_is_said_when_nothing_is_missing_and_not_before",),
        e2e=("tests/e2e/deploy/test_started_by_a_manager.py::test_ready_waits_for_the_router_and_says_so",),
    ),
    # ── several machines ─────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="mesh-names",
        rule="who sends frames to another host accepts only a certificate that names that host",
        file="common/bus/zeromq/mesh_certificates.py",
        before="    client.hostname_checks_common_name = False\n",
        after="    client.check_hostname = False\n",
        unit=(
            "tests/integration/common/bus/test_tls_mesh.py::test_a_host_that_the_certificate_does_not_name_gets_no_frames_and_the_log_says_why",
        ),
        e2e=(
            "tests/e2e/test_tls_mesh.py::test_a_host_with_a_foreign_certificate_gets_no_frames_and_the_others_feel_nothing",
        ),
    ),
    Mutation(
        name="mesh-strangers",
        rule="whoever connects to the port of the frame mesh shows a certificate of the cluster",
        file="common/bus/zeromq/mesh_certificates.py",
        before="    server.verify_mode = ssl.CERT_REQUIRED\n",
        after="    server.verify_mode = ssl.CERT_NONE\n",
        unit=(
            "tests/integration/common/bus/test_tls_mesh.py::test_whoever_has_no_valid_certificate_of_the_cluster_is_refused_and_disturbs_nobody",
        ),
        e2e=(
            "tests/e2e/test_tls_mesh.py::test_strangers_at_the_port_are_refused_and_bounded_and_a_new_certificate_is_shown_without_a_restart",
        ),
    ),
    Mutation(
        name="mesh-handshakes",
        rule="connections of one address without a verified certificate are bounded",
        file="common/bus/zeromq/tls_sockets.py",
        before="len(self._handshakes) >= MAX_HANDSHAKES or self._of_one[address] >= MAX_HANDSHAKES_OF_ONE:",
        after="len(self._handshakes) >= MAX_HANDSHAKES:",
        unit=("tests/integration/common/bus/test_tls_mesh.py::test_strangers_that_say_nothing_are_bounded_and_closed",),
        e2e=(
            "tests/e2e/test_tls_mesh.py::test_strangers_at_the_port_are_refused_and_bounded_and_a_new_certificate_is_shown_without_a_restart",
        ),
    ),
    Mutation(
        name="mesh-renewal",
        rule="a changed certificate of the frame mesh is used without a restart",
        file="common/bus/zeromq/mesh_certificates.py",
        before="        if stamps == self._stamps:\n",
        after="        if stamps:\n",
        unit=(
            "tests/integration/common/bus/test_tls_mesh.py::test_renewed_certificates_are_used_for_new_connections_without_a_restart",
        ),
        e2e=(
            "tests/e2e/test_tls_mesh.py::test_strangers_at_the_port_are_refused_and_bounded_and_a_new_certificate_is_shown_without_a_restart",
        ),
    ),
    Mutation(
        name="mesh-newest",
        rule="of a stream whose frames wait for a peer, the newest one waits",
        file="common/bus/peer_queue.py",
        before="        if older is not None:\n            self.bytes -= older[1]\n",
        after="        if older is not None:\n            return\n            self.bytes -= older[1]\n",
        unit=(
            "tests/unit/common/bus/test_peer_queue.py::test_the_newest_of_a_stream_waits_and_keeps_the_turn_of_the_older",
        ),
        e2e=(
            "tests/e2e/test_bus.py::test_a_stopped_gateway_costs_the_router_little_and_nobody_a_frame_and_sees_the_newest_when_it_is_back",
        ),
    ),
    Mutation(
        name="mesh-links",
        rule="a member of the same home is reached by its Unix socket, and any other one over TLS",
        file="common/bus/zeromq/mesh_links.py",
        before="address.host is not None and not path.exists()\n",
        after="address.host is not None\n",
        unit=(
            "tests/integration/common/bus/test_tls_mesh.py::test_a_member_of_the_same_home_is_reached_by_its_unix_socket",
        ),
        e2e=("tests/e2e/test_tls_mesh.py::test_frames_go_straight_between_hosts_and_to_a_bridge_on_a_third",),
    ),
    Mutation(
        name="where",
        rule="where a stream is published is what the gateway of its camera says of itself, whoever asks",
        file="router/handler.py",
        before='self.members.get(stream.gateway or b"")\n        if gateway is None',
        after="next(iter(self.members.all()), None)\n        if gateway is None",
        unit=(
            "tests/unit/router/test_handler.py::test_where_a_stream_is_published_is_told_of_the_gateway_that_has_it_and_to_whoever_asks",
        ),
        e2e=("tests/e2e/test_placement.py::test_where_a_stream_is_published_is_told_to_those_who_may_view_it",),
    ),
    Mutation(
        name="missing-slot",
        rule="a reply that was merged from those of all slots names the slots that did not answer",
        file="common/bus/merged_replies.py",
        before="missing_slots=list(missing) or msgspec.UNSET,",
        after="missing_slots=msgspec.UNSET,",
        unit=("tests/unit/common/bus/test_merged_replies.py::test_a_missing_slot_is_named",),
        e2e=("tests/e2e/test_slots.py::test_a_slot_without_a_router_is_named_refused_in_time_and_delays_no_other",),
    ),
    Mutation(
        name="own-timestamps",
        rule="a frame without a timestamp of the camera has no time of capture: the ledger guesses none",
        file="gateway/latency/camera_clock.py",
        before="self.has_own_time = self.has_own_time or stamp != here_ms",
        after="self.has_own_time = True",
        unit=(
            "tests/unit/gateway/latency/test_camera_clock.py::test_frames_that_have_the_gateways_time_tell_nothing_of_a_clock",
        ),
        e2e=("tests/e2e/test_latency.py::test_the_ledger_says_how_late_a_camera_with_a_wrong_clock_is",),
    ),
    Mutation(
        name="camera-clock",
        rule="when a frame was captured is told by the clock here, whatever the camera's clock says",
        file="gateway/latency/recorder.py",
        before="FrameStamps(wall, None if delay is None else wall - delay)",
        after="FrameStamps(wall, None if delay is None else float(frame.timestamp))",
        unit=(
            "tests/unit/gateway/latency/test_recorder.py::test_a_frame_of_a_camera_that_is_ahead_was_captured_when_it_was",
        ),
        e2e=("tests/e2e/test_latency.py::test_the_ledger_says_how_late_a_camera_with_a_wrong_clock_is",),
    ),
    Mutation(
        name="cluster-lost",
        rule="a gateway that fell silent is named by `watchout-ctl cluster`, not hidden",
        file="router/handler.py",
        before="            self.members.remember_lost(member, now)\n",
        after="",
        unit=("tests/unit/router/test_handler.py::test_a_gateway_that_falls_silent_is_told_to_operators",),
        e2e=(
            "tests/e2e/test_ctl_cluster.py::test_one_machine_shows_its_gateways_and_links_and_names_a_gateway_that_is_gone",
        ),
    ),
    Mutation(
        name="why-silent",
        rule="`watchout-ctl why` names a process that hangs, whose knowledge is missing in the answer",
        file="router/inquiries.py",
        before="                inquiry.silent.append(gone)\n",
        after="",
        unit=("tests/unit/router/test_inquiries.py::test_a_member_that_ends_is_not_waited_for",),
        e2e=("tests/e2e/test_why.py::test_a_gateway_that_hangs_and_one_that_was_killed_are_named",),
    ),
    Mutation(
        name="why-counts",
        rule="the frames that the access log says were written are those that the client counted",
        file="gateway/hub/subscription.py",
        before="arrived - self.arrived_before - dropped - (",
        after="arrived - self.arrived_before - (",
        unit=(
            "tests/unit/gateway/why/test_counts.py::test_the_frames_written_are_those_that_arrived_less_those_dropped_and_waiting",
        ),
        e2e=("tests/e2e/test_why.py::test_why_viewers_get_what_they_get_and_what_became_of_an_alert",),
    ),
    # ── what operators are told ──────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="counters-from-zero",
        rule="a counter is in /metrics before it counts, so that Prometheus sees its first rise",
        file="gateway/http/prometheus.py",
        before="{**dict.fromkeys(counters_of(kind), 0), **with_former_names(metrics)}",
        after="metrics",
        unit=(
            "tests/unit/gateway/test_prometheus.py::test_a_counter_is_there_before_it_counts_so_that_its_first_rise_is_one",
        ),
        e2e=(
            "tests/e2e/deploy/test_prometheus.py::test_every_panel_has_data_and_a_rule_fires_while_what_it_watches_is_broken",
        ),
    ),
    Mutation(
        name="trace-queue",
        rule="spans that wait for the receiver of traces are bounded, and what is dropped is counted",
        file="common/tracing/tracer.py",
        before="if len(self._waiting) >= self._max_waiting:",
        after="if False:",
        unit=(
            "tests/unit/common/tracing/test_tracer.py::test_the_queue_is_bounded_and_each_span_is_sent_or_counted_as_dropped",
        ),
        e2e=(
            "tests/e2e/test_traces.py::test_frames_and_alerts_go_on_while_the_receiver_takes_nothing_and_what_is_dropped_is_counted",
        ),
    ),
    Mutation(
        name="trace-of-service",
        rule="an alert hangs below the span of the ML service, when the service says its own",
        file="mlbridge/targets/results.py",
        before="[{TRACEPARENT: traceparent, **alert} if isinstance(alert, dict) else alert for alert in alerts]",
        after="alerts",
        unit=(
            "tests/unit/mlbridge/test_traced_frames.py::test_the_context_of_the_service_goes_to_its_alerts_the_nearest_first",
        ),
        e2e=(
            "tests/e2e/test_traces.py::test_an_alert_is_one_trace_from_its_frame_through_the_ml_service_to_the_sockets",
        ),
    ),
    # ── upgrades ─────────────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="drain-nowhere",
        rule="clients of a gateway that ends wait for their turn only while another gateway is there for them",
        file="gateway/drain.py",
        before="                successor = await self._look(successor)\n",
        after="",
        unit=("tests/unit/gateway/test_drain.py::test_whoever_has_nowhere_to_go_any_more_is_asked_at_once",),
        e2e=("tests/e2e/deploy/test_drain.py::test_gateways_that_all_end_do_not_wait_for_each_other",),
    ),
    Mutation(
        name="drain-elsewhere",
        rule="a gateway that ends goes on accepting where a balancer has yet to notice",
        file="gateway/drain.py",
        before="        if successor is not Successor.ELSEWHERE:\n",
        after="        if True:\n",
        unit=("tests/unit/gateway/test_drain.py::test_with_a_gateway_elsewhere_it_is_open_until_all_were_asked",),
        e2e=(
            "tests/e2e/deploy/test_drain.py::test_a_gateway_whose_others_are_at_another_port_serves_on_while_it_says_that_it_drains",
        ),
    ),
    Mutation(
        name="reload-restart",
        rule="a reload leaves what needs a restart as it is, and names it",
        file="common/settings/changes.py",
        before="if spec.reload is Reload.NO or (spec.reload is Reload.REPLACED and unset):",
        after="if False:",
        unit=("tests/unit/common/test_reloading.py::test_what_can_be_is_taken_up_and_the_rest_is_named",),
        e2e=("tests/e2e/deploy/test_reload.py::test_a_reload_takes_effect_without_a_lost_connection_or_frame",),
    ),
    Mutation(
        name="backup-unlocked",
        rule="a router that runs leaves its files free for a backup between two writes",
        file="router/home_database.py",
        before='                db.execute("PRAGMA synchronous=NORMAL")\n',
        after='                db.execute("PRAGMA locking_mode=EXCLUSIVE")\n',
        unit=(
            "tests/unit/ctl/backup/test_saving_and_restoring.py::test_the_files_of_a_router_that_has_them_open_are_copied",
        ),
        e2e=("tests/e2e/test_backup.py::test_a_backup_of_a_running_watchout_brings_all_back_after_its_home_is_gone",),
    ),
    Mutation(
        name="restore-running",
        rule="a home in which a process runs is not restored",
        file="ctl/backup/restoring.py",
        before="    if alive:\n",
        after="    if False:\n",
        unit=(
            "tests/unit/ctl/backup/test_saving_and_restoring.py::test_a_home_with_a_process_is_not_restored_and_the_process_is_named",
        ),
        e2e=("tests/e2e/test_backup.py::test_a_backup_of_a_running_watchout_brings_all_back_after_its_home_is_gone",),
    ),
    Mutation(
        name="rehearse-unmeasured",
        rule="an objective of a rehearsal of which nothing was measured is missed",
        file="ctl/rehearse/objectives.py",
        before="        return False\n    return value >= limit",
        after="        return True\n    return value >= limit",
        unit=("tests/unit/ctl/rehearse/test_objectives.py::test_the_limit_itself_is_met_and_beyond_it_is_missed",),
        e2e=(
            "tests/integration/ctl/test_rehearse.py::test_a_running_system_whose_ml_service_fails_misses_its_objective",
        ),
    ),
    Mutation(
        name="soak-unmeasured",
        rule="a soak that is too short to tell whether a process grows decides nothing",
        file="ctl/rehearse/growth.py",
        before="    if slope is None:\n        return Verdict.UNDECIDED\n",
        after="    if slope is None:\n        return Verdict.PASSED\n",
        unit=("tests/unit/ctl/rehearse/test_growth.py::test_too_few_samples_decide_nothing",),
        e2e=(
            "tests/integration/ctl/test_rehearse.py::test_a_soak_does_everything_at_once_and_a_short_one_decides_nothing",
        ),
    ),
    # ── what is scarce ───────────────────────────────────────────────────────────────────────────────────────────
    Mutation(
        name="last-descriptors",
        rule="the last file descriptors of a router are not given to other machines",
        file="common/bus/zeromq/tcp_router.py",
        before="        if short_now():\n",
        after="        if False:\n",
        unit=(
            "tests/integration/common/bus/zeromq/test_tcp.py::test_whoever_comes_is_turned_away_while_descriptors_are_short",
        ),
        e2e=("tests/faults/test_few_descriptors.py::test_strangers_take_no_descriptor_that_the_router_needs",),
    ),
    Mutation(
        name="full-disk-store",
        rule="on a full disk a session store without its index is read by one gateway at a time",
        file="identity/sources/sqlite.py",
        before="            if not lacks_room(exc):\n",
        after="            if exc:\n",
        unit=(
            "tests/unit/identity/test_sqlite.py::test_gateways_take_turns_where_there_is_no_room_for_their_common_index",
        ),
        e2e=(
            "tests/faults/test_full_disk.py::test_everything_starts_on_a_full_disk_serves_who_it_knows_and_writes_again_when_there_is_room",
        ),
    ),
)
