import { CameraPublisher, LiveView, useAlerts, useStreams, WatchoutProvider } from "@watchout/react";
import { createAuthClient } from "better-auth/react";
import { type FormEvent, useState } from "react";

const auth = createAuthClient();

/** The token by which watchout knows the user: the Better Auth session's own. Asked for again when it has ended. */
const token = async () => (await auth.getSession()).data?.session.token ?? null;

export function App({ watchout }: { watchout: string }) {
  const { data: session, isPending } = auth.useSession();
  if (isPending) return <p>…</p>;
  if (session === null) return <SignIn />;
  return (
    <WatchoutProvider url={watchout} token={token}>
      <header>
        <span>{session.user.email}</span>
        <button onClick={() => void auth.signOut()}>Sign out</button>
      </header>
      <Cameras />
    </WatchoutProvider>
  );
}

function Cameras() {
  const { streams, error } = useStreams();
  const [publishing, setPublishing] = useState(false);
  return (
    <main>
      <button onClick={() => setPublishing(!publishing)}>{publishing ? "Stop" : "Use this device's camera"}</button>
      {publishing && <CameraPublisher streamId="this-device" />}
      <ul className="grid">
        {streams.map(({ id }) => (
          <li key={id}>
            <LiveView id={id} />
            <strong>{id}</strong>
            <Alerts stream={id} />
          </li>
        ))}
      </ul>
      {error !== undefined && <p role="alert">{error.message}</p>}
      {streams.length === 0 && !publishing && <p>No camera yet. Use this one, or publish from elsewhere.</p>}
    </main>
  );
}

function Alerts({ stream }: { stream: string }) {
  const alerts = useAlerts(stream);
  return (
    <ol>
      {alerts.map(({ id, severity, message, timestamp }) => (
        <li key={id} className={severity}>
          {new Date(timestamp).toLocaleTimeString()} {message}
        </li>
      ))}
    </ol>
  );
}

function SignIn() {
  const [fault, setFault] = useState("");
  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const email = String(form.get("email"));
    const password = String(form.get("password"));
    const isNew = (event.nativeEvent as SubmitEvent).submitter?.id === "sign-up";
    const { error } = isNew
      ? await auth.signUp.email({ email, password, name: email })
      : await auth.signIn.email({ email, password });
    setFault(error?.message ?? "");
  }
  return (
    <form onSubmit={(event) => void submit(event)}>
      <input name="email" type="email" placeholder="Email" autoComplete="username" required />
      <input name="password" type="password" placeholder="Password" autoComplete="current-password" minLength={8} required />
      <button id="sign-in">Sign in</button>
      <button id="sign-up">Create account</button>
      {fault !== "" && <p role="alert">{fault}</p>}
    </form>
  );
}
