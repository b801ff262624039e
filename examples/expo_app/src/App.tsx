/** A phone as camera: sign in, publish, see the alerts about it, and raise one. */

import { CameraView, useCameraPermissions } from "expo-camera";
import { useKeepAwake } from "expo-keep-awake";
import { useEffect, useRef, useState } from "react";
import { AppState, Button, ScrollView, StyleSheet, Text, TextInput, View } from "react-native";
import { type Alert, type Camera, type Platform, Watchout } from "@watchout/client";
import { savedToken, signIn, signOut } from "./auth";
import { capture } from "./capture";

const APP = process.env.EXPO_PUBLIC_APP_URL ?? "http://localhost:5173";
const WATCHOUT = process.env.EXPO_PUBLIC_WATCHOUT_URL ?? "http://localhost:3000";
const STREAM = process.env.EXPO_PUBLIC_STREAM_ID ?? "phone";

/** Tells the client when the app comes back to the front: timers stand still meanwhile. */
const appState: Platform = (report) => {
  const subscription = AppState.addEventListener("change", (next) => next === "active" && report("wake"));
  return () => subscription.remove();
};

export function App() {
  const [signedIn, setSignedIn] = useState<boolean>();
  useEffect(() => {
    void savedToken().then((token) => setSignedIn(token !== null));
  }, []);
  if (signedIn === undefined) return null;
  if (!signedIn) return <SignIn onDone={() => setSignedIn(true)} />;
  return <Publisher onSignOut={() => void signOut().then(() => setSignedIn(false))} />;
}

function SignIn({ onDone }: { onDone: () => void }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [fault, setFault] = useState("");
  const submit = () => signIn(APP, email.trim(), password).then(onDone, (error) => setFault(String(error.message)));
  return (
    <View style={styles.page}>
      <TextInput style={styles.field} placeholder="Email" autoCapitalize="none" inputMode="email" onChangeText={setEmail} />
      <TextInput style={styles.field} placeholder="Password" secureTextEntry onChangeText={setPassword} />
      <Button title="Sign in" onPress={() => void submit()} />
      {fault !== "" && <Text style={styles.fault}>{fault}</Text>}
    </View>
  );
}

function Publisher({ onSignOut }: { onSignOut: () => void }) {
  useKeepAwake();
  const [permission, askPermission] = useCameraPermissions();
  const lens = useRef<CameraView>(null);
  const publisher = useRef<Camera>(null);
  const [ready, setReady] = useState(false);
  const [line, setLine] = useState("connecting");
  const [alerts, setAlerts] = useState<readonly Alert[]>([]);

  useEffect(() => {
    if (!ready) return;
    const client = new Watchout(WATCHOUT, { token: savedToken, platform: appState });
    const camera = client.camera({ streamId: STREAM, info: { deviceName: "Expo app", deviceType: "phone" } });
    publisher.current = camera;
    camera.on("state", ({ state, reason }) => setLine(reason === undefined ? state : `${state}: ${reason.message}`));
    camera.on("error", (error) => setLine(error.message));
    camera.on("demand", ({ viewers, fps }) => setLine(fps > 0 ? `${viewers} watching, ${fps} fps wanted` : "nobody watches"));
    camera.on("alert", (alert) => setAlerts((before) => [alert, ...before].slice(0, 20)));
    const stopped = new AbortController();
    const take = async () => {
      const picture = await lens.current?.takePictureAsync({ base64: true, quality: 0.5, shutterSound: false, skipProcessing: true });
      if (picture?.base64 === undefined) throw new Error("the camera gave no picture");
      return picture.base64;
    };
    void capture(camera, take, stopped.signal, (error) => setLine(String(error)));
    return () => {
      stopped.abort();
      publisher.current = null;
      client.close();
    };
  }, [ready]);

  if (permission === null) return null;
  if (!permission.granted) {
    return (
      <View style={styles.page}>
        <Text>The camera is needed to publish pictures.</Text>
        <Button title="Allow the camera" onPress={() => void askPermission()} />
      </View>
    );
  }
  return (
    <View style={styles.page}>
      <CameraView ref={lens} style={styles.preview} animateShutter={false} onCameraReady={() => setReady(true)} />
      <Text accessibilityLiveRegion="polite">{line}</Text>
      <Button color="#b00020" title="Raise an alert" onPress={() => publisher.current?.alert("high", "Help is needed here")} />
      <ScrollView>
        {alerts.map((alert) => (
          <Text key={alert.id}>{`${new Date(alert.timestamp).toLocaleTimeString()} ${alert.severity}: ${alert.message}`}</Text>
        ))}
      </ScrollView>
      <Button title="Sign out" onPress={onSignOut} />
    </View>
  );
}

const styles = StyleSheet.create({
  page: { flex: 1, gap: 12, padding: 24, paddingTop: 64 },
  field: { borderBottomWidth: 1, padding: 8 },
  fault: { color: "#b00020" },
  preview: { aspectRatio: 3 / 4 },
});
