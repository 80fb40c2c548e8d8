//! Opens the rooms in the order of the life cycle and starts their tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::gather::States;
use super::reload::Live;
use super::{Addresses, DaemonError, folder};
use crate::api::{self, Bound, Doors};
use crate::clock::SharedClock;
use crate::config::{Config, Retention};
use crate::engine::{Engine, EngineHandle, EngineState, Program};
use crate::ingest::client::{Client, ClientState};
use crate::ingest::decode::Decoder;
use crate::ingest::files::Importer;
use crate::ingest::http::Desk;
use crate::ingest::listener::{Listener, ListenerState};
use crate::ingest::{self, Intake, Latest, Parts, Pump, PumpState, Rules};
use crate::ledger::{Ledger, LedgerError, Open};
use crate::memory;
use crate::retention::{self, Enforcer, RetentionState};
use crate::segment::{self, Merger, MergerSetup, Readers, Scrubber, Sealer, SealerHandle, SealerState, SegmentDir};
use crate::space::Space;
use crate::status::{Frame, Sources, systemd};
use crate::tasks::{Stage, TaskSet};
use crate::upload::{self, LinkState, Setup, Uploader, UploaderHandle, Upstream};

/// What the daemon itself still needs of the rooms.
pub struct Rooms {
    /// To be closed last.
    pub ledger: Ledger,
    /// For status.
    pub sources: Arc<Sources>,
    /// For a flush.
    pub sealer: SealerHandle,
    /// For a flush, if there is an upstream.
    pub uploader: Option<UploaderHandle>,
    /// What is bound.
    pub addresses: Addresses,
    /// Where new settings go.
    pub live: Live,
}

/// Opens everything and starts the tasks.
pub async fn open(config: Config, clock: SharedClock, tasks: &TaskSet) -> Result<Rooms, DaemonError> {
    // Wrong routes and a wrong upstream are told before anything is touched.
    let decoder = Decoder::new(&config.route, &config.ingest)?;
    let upstream = config.upstream.as_ref().map(upload::open).transpose()?;
    let ground = Ground::open(&config, clock, tasks).await?;
    let (rules, changing) = watch::channel(Rules { decoder: Arc::new(decoder), journal: config.journal.clone() });
    let (limits, changes) = watch::channel(config.retention.clone());
    let (intake, latest, pump) = ground.start_pump(changing).await?;
    let sealer = ground.start_sealer();
    let (uploader, link) = ground.start_uploader(upstream, &sealer);
    let retention = ground.start_enforcer(&sealer, changes.clone());
    let (engine, engine_state) = ground.start_engine(&sealer);
    let (listener, listener_state) = ground.bind_listener(&intake).await?;
    let (client, client_state) = ground.new_client(&intake)?;
    let bound = api::bind(&config.api).await?;
    let addresses = Addresses {
        mqtt: listener.as_ref().map(Listener::addresses).unwrap_or_default(),
        http: bound.addresses(),
        flight: bound.flight_addresses(),
    };
    let ready = Arc::new(AtomicBool::new(false));
    let sources = ground.sources(States {
        pump,
        latest: Arc::clone(&latest),
        listener: listener_state,
        client: client_state,
        sealer: Arc::clone(&ground.sealed),
        link,
        retention: Arc::clone(&retention),
        space: ground.space.clone(),
        engine: engine_state,
        addresses: addresses.clone(),
        gate: listener.as_ref().map(Listener::gate),
        http_tls: bound.tls(),
        flight_tls: bound.flight_tls(),
        clock: Arc::clone(&ground.clock),
        ready: Arc::clone(&ready),
    });
    let doors = Doors {
        sources: Arc::clone(&sources),
        ledger: ground.ledger.clone(),
        dir: ground.dir.clone(),
        latest: Arc::clone(&latest),
        desk: Desk::new(intake.clone()),
        importer: ground.importer(&latest),
        clock: Arc::clone(&ground.clock),
        sealer: sealer.clone(),
        uploader: uploader.clone(),
        engine: Arc::new(engine),
    };
    ground.start_doors(bound, doors);
    ground.start_sources(listener, client);
    ground.start_scrubber();
    ground.start_merger(changes);
    ready.store(true, Ordering::Relaxed);
    let live = Live::new(config.clone(), ground.ledger.clone(), rules, limits, intake, latest, Arc::clone(&sources));
    Ok(Rooms { ledger: ground.ledger, sources, sealer, uploader, addresses, live })
}

/// What the rooms stand on: the settings, and the stores they share.
struct Ground<'a> {
    config: &'a Config,
    tasks: &'a TaskSet,
    clock: SharedClock,
    ledger: Ledger,
    dir: SegmentDir,
    /// Recovery, sealer, scrubber and uploader all count in it.
    sealed: Arc<SealerState>,
    /// Retention says there whether the pump and its sources may take readings, and how much may be written.
    space: Space,
}

impl<'a> Ground<'a> {
    /// Opens the ledger and the segments, and brings them to agree.
    async fn open(config: &'a Config, clock: SharedClock, tasks: &'a TaskSet) -> Result<Self, DaemonError> {
        retention::give_back_if_full(&config.gateway.data_dir);
        let (data_dir, open) = (config.gateway.data_dir.clone(), Open { host_id: folder::host_id(), clock: Arc::clone(&clock) });
        let ledger = blocking("opening it", move || Ledger::open(&data_dir, open)).await?;
        ledger.checkpoint_at(config.journal.checkpoint.0);
        let space = Space::default();
        let readers = if config.engine.unit().is_some() { Readers::Group } else { Readers::Owner };
        let dir = SegmentDir::within(&config.gateway.data_dir, space.clone(), readers)?;
        let sealed = Arc::new(SealerState::default());
        segment::recover(&ledger, &dir, &sealed).await?;
        let (gateway, data_dir, instance) = (&config.gateway.id, config.gateway.data_dir.display(), ledger.identity().instance);
        tracing::info!(gateway, %instance, %data_dir, "the data folder is open");
        Ok(Self { config, tasks, clock, ledger, dir, sealed, space })
    }

    async fn start_pump(&self, rules: watch::Receiver<Rules>) -> Result<(Intake, Arc<Latest>, Arc<PumpState>), DaemonError> {
        let (ledger, config) = (self.ledger.clone(), self.config.clone());
        let (latest, once) = blocking("reading its journal", move || ingest::remember(&ledger.reader()?, &config)).await?;
        memory::give_back();
        let (latest, state) = (Arc::new(latest), Arc::new(PumpState::default()));
        let (intake, deliveries) = Intake::within(self.space.clone(), self.config.retention.cap.0);
        let parts = Parts {
            deliveries,
            ledger: self.ledger.clone(),
            rules,
            latest: Arc::clone(&latest),
            once,
            clock: Arc::clone(&self.clock),
            space: self.space.clone(),
            state: Arc::clone(&state),
        };
        let pump = Pump::new(parts, &self.config.gateway.data_dir);
        self.tasks.critical("pump", Stage::Pump, pump.run(self.tasks.stop_of(Stage::Pump)));
        Ok((intake, latest, state))
    }

    fn start_sealer(&self) -> SealerHandle {
        let (ledger, dir, settings) = (self.ledger.clone(), self.dir.clone(), self.config.segment.clone());
        let (sealer, handle) = Sealer::new(ledger, dir, settings, Arc::clone(&self.clock), Arc::clone(&self.sealed));
        self.tasks.critical("sealer", Stage::Sealer, sealer.run(self.tasks.stop_of(Stage::Sealer)));
        handle
    }

    /// Last of all: it reads every segment, and nobody should wait for that.
    fn start_scrubber(&self) {
        let scrubber = Scrubber::new(self.ledger.clone(), self.dir.clone(), Arc::clone(&self.sealed));
        let stop = self.tasks.stop_of(Stage::Sealer);
        self.tasks.side("scrubber", Stage::Sealer, move || scrubber.clone().run(stop.clone()));
    }

    /// It needs nobody, and nobody waits for it.
    fn start_merger(&self, changes: watch::Receiver<Retention>) {
        let merger = Merger::new(MergerSetup {
            ledger: self.ledger.clone(),
            dir: self.dir.clone(),
            clock: Arc::clone(&self.clock),
            state: Arc::clone(&self.sealed),
            data_dir: self.config.gateway.data_dir.clone(),
            segment: self.config.segment.clone(),
            retention: changes,
        });
        let stop = self.tasks.stop_of(Stage::Sealer);
        self.tasks.side("merger", Stage::Sealer, move || merger.clone().run(stop.clone()));
    }

    fn start_uploader(&self, upstream: Option<Arc<dyn Upstream>>, sealer: &SealerHandle) -> (Option<UploaderHandle>, LinkState) {
        let Some((settings, upstream)) = self.config.upstream.clone().zip(upstream) else { return (None, LinkState::off()) };
        let link = LinkState::probing();
        let (uploader, handle) = Uploader::new(Setup {
            ledger: self.ledger.clone(),
            dir: self.dir.clone(),
            upstream,
            settings,
            gateway: self.config.gateway.id.clone(),
            clock: Arc::clone(&self.clock),
            link: link.clone(),
            sealer: Some(sealer.clone()),
            sealer_state: Arc::clone(&self.sealed),
        });
        let stop = self.tasks.stop_of(Stage::Uploader);
        let (stop_watching, waker) = (stop.clone(), handle.clone());
        self.tasks.side("uploader", Stage::Uploader, move || uploader.clone().run(stop.clone()));
        self.tasks.side("network", Stage::Uploader, move || {
            let waker = waker.clone();
            upload::watch_network(move || waker.network_changed(), stop_watching.clone())
        });
        (Some(handle), link)
    }

    /// While one cut is sealed the next may gather.
    fn importer(&self, latest: &Arc<Latest>) -> Importer {
        let max_hot = self.config.segment.seal_readings.saturating_mul(2);
        Importer::new(self.ledger.clone(), Arc::clone(latest), Arc::clone(&self.clock), self.space.clone(), max_hot)
    }

    /// It goes on as long as something is sealed, and hands over no shipment: the uploader may go on after it.
    fn start_enforcer(&self, sealer: &SealerHandle, changes: watch::Receiver<Retention>) -> Arc<RetentionState> {
        let state = Arc::new(RetentionState::default());
        let enforcer = Enforcer::new(retention::Setup {
            ledger: self.ledger.clone(),
            dir: self.dir.clone(),
            sealer: sealer.clone(),
            data_dir: self.config.gateway.data_dir.clone(),
            settings: self.config.retention.clone(),
            changes,
            clock: Arc::clone(&self.clock),
            space: self.space.clone(),
            state: Arc::clone(&state),
        });
        self.tasks.critical("enforcer", Stage::Sealer, enforcer.run(self.tasks.stop_of(Stage::Sealer)));
        state
    }

    fn start_engine(&self, sealer: &SealerHandle) -> (EngineHandle, Arc<EngineState>) {
        let state = Arc::new(EngineState::default());
        let (ledger, dir, sealer) = (self.ledger.clone(), self.dir.clone(), sealer.clone());
        let (engine, handle) = Engine::new(&self.config.engine, ledger, dir, sealer, Arc::clone(&state), Program::default());
        let stop = self.tasks.stop_of(Stage::Engine);
        self.tasks.side("engine", Stage::Engine, move || engine.clone().run(stop.clone()));
        (handle, state)
    }

    async fn bind_listener(&self, intake: &Intake) -> Result<(Option<Listener>, Arc<ListenerState>), DaemonError> {
        let state = Arc::new(ListenerState::default());
        let Some(settings) = &self.config.listener else { return Ok((None, state)) };
        let max_message_bytes = usize::try_from(self.config.ingest.max_message_bytes.0).unwrap_or(usize::MAX);
        let (intake, ledger, clock) = (intake.clone(), self.ledger.clone(), Arc::clone(&self.clock));
        let listener = Listener::bind(settings, max_message_bytes, intake, ledger, clock, Arc::clone(&state)).await?;
        Ok((Some(listener), state))
    }

    fn new_client(&self, intake: &Intake) -> Result<(Option<Client>, Arc<ClientState>), DaemonError> {
        let state = Arc::new(ClientState::default());
        let Some(settings) = &self.config.mqtt else { return Ok((None, state)) };
        let (id, max_message_bytes) = (&self.config.gateway.id, self.config.ingest.max_message_bytes.0);
        let (intake, ledger, clock) = (intake.clone(), self.ledger.clone(), Arc::clone(&self.clock));
        let client = Client::new(settings, id, max_message_bytes, intake, ledger, clock, Arc::clone(&state))?;
        Ok((Some(client), state))
    }

    /// What status is made of.
    fn sources(&self, states: States) -> Arc<Sources> {
        let frame = Frame {
            gateway: self.config.gateway.id.clone(),
            data_dir: self.config.gateway.data_dir.clone(),
            cap_bytes: self.config.retention.cap.0,
        };
        Arc::new(Sources::new(frame, self.ledger.clone(), Arc::clone(&self.clock), move || states.now()))
    }

    fn start_doors(&self, bound: Bound, doors: Doors) {
        let (sources, stop) = (Arc::clone(&doors.sources), self.tasks.stop_of(Stage::Api));
        self.tasks.critical("doors", Stage::Api, api::serve(bound, doors, stop.clone()));
        self.tasks.side("systemd", Stage::Api, move || systemd::keep_informed(Arc::clone(&sources), stop.clone()));
    }

    fn start_sources(&self, listener: Option<Listener>, client: Option<Client>) {
        let stop = self.tasks.stop_of(Stage::Sources);
        if let Some(listener) = listener {
            self.tasks.critical("listener", Stage::Sources, listener.run(stop.clone()));
        }
        if let Some(client) = client {
            self.tasks.critical("client", Stage::Sources, client.run(stop));
        }
    }
}

/// Runs `work` on the ledger where blocking is allowed.
async fn blocking<T: Send + 'static>(what: &str, work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static) -> Result<T, LedgerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(LedgerError::Broken(format!("{what} panicked: {panic}"))))
}
