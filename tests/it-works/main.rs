//! The payment service that most tutorials end with. It works, its tests pass, and **it must never be used**.
//!
//! It is here to be compared with: `make drill STORY=1` does the same to it and to the service of this repository, and
//! counts who paid twice; `STORY=2` sends both the names of people and pranksters, 3 the customers of a launch day, and 4
//! takes their provider away. It looks the idempotency key up before it charges, has a unique constraint, does all of it in
//! one transaction, sends the provider an idempotency key, and says so when something failed.
//!
//! Where it is wrong about money, by the steps in [`create_payment`]:
//!
//! - **Step 1 looks, step 3 acts.** Of two requests with one key both can find nothing in step 1, and both charge in
//!   step 2. The primary key of `idempotency_keys` refuses the second row, when the second charge has been made.
//! - **Step 2 is not written down before it is taken.** Who dies between step 2 and the commit of step 3, or is dropped
//!   there because its caller has hung up (axum ends a handler with its connection), leaves a charge that no table knows.
//! - **Step 2 takes unknown for failed.** [`charge`] answers 502 when the provider's answer is lost, and 5xx of the
//!   provider are no different: the money may have moved. So with step 3, whose failure is a 500 after a charge.
//! - **Step 2 makes a new key for the provider.** It is the id of a payment, and a repeated request is another payment.
//!   The provider would have recognised the repetition by a key that is the same each time.
//! - **Step 2 has no bound and holds a connection.** reqwest waits for ever unless it is told otherwise; so does whoever
//!   called, and once all connections wait with it, so does whoever only reads.
//! - **Step 1 answers a known key with the payment that it has,** also if the request is for another one.
//! - **`charge` knows two outcomes.** A payment that the customer has still to confirm is shown as failed, and may be
//!   paid later.
//!
//! Where it is wrong about names:
//!
//! - **[`short`] cuts between bytes.** Where a character goes past the 22nd, it panics, and axum drops the connection.
//! - **Three parts count three ways:** bytes before step 1, characters in the column, and between them markup is escaped.
//!   What the column refuses, as a NUL or a character too many, is a 500 after a charge.
//! - **It escapes on the way in.** O'Brien is O&#39;Brien on every receipt, and whoever escapes again makes it worse.
//! - **It has no rule for what nobody sees.** Two names, or references, may look the same and be different.

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use uuid::Uuid;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS payments (
        id uuid PRIMARY KEY,
        reference text NOT NULL,
        status text NOT NULL,
        amount bigint NOT NULL CHECK (amount > 0),
        currency text NOT NULL,
        payment_method text NOT NULL,
        customer_name varchar(40) NOT NULL,
        intent_id text,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS idempotency_keys (
        key text PRIMARY KEY,
        payment_id uuid NOT NULL REFERENCES payments (id)
    );";

/// What every handler shares.
#[derive(Clone)]
struct App {
    pool: PgPool,
    http: reqwest::Client,
    provider_url: String,
    provider_key: String,
}

#[derive(Debug, Deserialize)]
struct NewPayment {
    amount: i64,
    currency: String,
    reference: String,
    payment_method: String,
    #[serde(default)]
    customer_name: String,
}

#[derive(Debug, Serialize, sqlx::FromRow)]
struct Payment {
    id: Uuid,
    reference: String,
    status: String,
    amount: i64,
    currency: String,
    payment_method: String,
    customer_name: String,
    intent_id: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(20).connect(&setting("DATABASE_URL")?).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let app = App {
        pool,
        // the simulator is spoken to without TLS, and a bare machine has no certificates to load
        http: reqwest::Client::builder().tls_certs_only([]).build()?,
        provider_url: setting("PROVIDER_URL")?,
        provider_key: setting("PROVIDER_API_KEY")?,
    };
    let routes = Router::new()
        .route("/v1/payments", post(create_payment))
        .route("/v1/payments/{id}", get(read_payment))
        .with_state(app);
    let listener = TcpListener::bind(setting("LISTEN")?).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

async fn create_payment(
    State(app): State<App>,
    headers: HeaderMap,
    Json(new): Json<NewPayment>,
) -> Result<Response, Error> {
    let key = headers.get("Idempotency-Key").and_then(|key| key.to_str().ok());
    let key = key.ok_or(Error::BadRequest("a payment needs an Idempotency-Key"))?;
    if new.amount <= 0 || new.customer_name.len() > 40 {
        return Err(Error::BadRequest("an amount is positive, and a name has at most 40 characters"));
    }

    // step 1: a key that is known has its payment already
    let mut transaction = app.pool.begin().await?;
    if let Some(payment) = find_by_key(&mut transaction, key).await? {
        return Ok(answer(payment));
    }

    // step 2: charge the card
    let id = Uuid::new_v4();
    let (status, intent_id) = charge(&app, id, &new).await?;

    // step 3: write the payment and its key, both or neither
    let payment = sqlx::query_as::<_, Payment>(
        "INSERT INTO payments (id, reference, status, amount, currency, payment_method, customer_name, intent_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *",
    )
    .bind(id)
    .bind(new.reference)
    .bind(status)
    .bind(new.amount)
    .bind(new.currency)
    .bind(new.payment_method)
    .bind(escape(&new.customer_name))
    .bind(intent_id)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query("INSERT INTO idempotency_keys (key, payment_id) VALUES ($1, $2)")
        .bind(key)
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;

    // step 4: tell the caller
    Ok(answer(payment))
}

/// Nobody puts a script into the pages of our shop.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;")
}

/// The list of charges at the provider has room for 22 characters.
fn short(text: &str) -> &str {
    &text[..text.len().min(22)]
}

async fn find_by_key(connection: &mut PgConnection, key: &str) -> Result<Option<Payment>, sqlx::Error> {
    sqlx::query_as("SELECT payments.* FROM payments JOIN idempotency_keys ON payment_id = id WHERE key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await
}

/// What became of a charge, and the intent's id.
type Charge = (&'static str, Option<String>);

/// Creates and confirms a PaymentIntent.
async fn charge(app: &App, id: Uuid, new: &NewPayment) -> Result<Charge, reqwest::Error> {
    let id = id.to_string();
    let form = [
        ("amount", new.amount.to_string()),
        ("currency", new.currency.to_lowercase()),
        ("payment_method", new.payment_method.clone()),
        ("payment_method_types[]", "card".to_owned()),
        ("confirm", "true".to_owned()),
        ("description", short(&new.customer_name).to_owned()),
        ("metadata[payment_id]", id.clone()),
    ];
    let response = app
        .http
        .post(format!("{}/v1/payment_intents", app.provider_url))
        .bearer_auth(&app.provider_key)
        .header("Idempotency-Key", id)
        .form(&form)
        .send()
        .await?;
    if response.status() == StatusCode::PAYMENT_REQUIRED {
        let declined: Value = response.json().await?;
        let intent_id = declined["error"]["payment_intent"]["id"].as_str().map(str::to_owned);
        return Ok(("failed", intent_id));
    }
    let intent: Value = response.error_for_status()?.json().await?;
    let status = if intent["status"] == "succeeded" { "captured" } else { "failed" };
    Ok((status, intent["id"].as_str().map(str::to_owned)))
}

fn answer(payment: Payment) -> Response {
    let status =
        if payment.status == "captured" { StatusCode::CREATED } else { StatusCode::PAYMENT_REQUIRED };
    let location = format!("/v1/payments/{}", payment.id);
    (status, [(LOCATION, location)], Json(payment)).into_response()
}

async fn read_payment(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Json<Payment>, Error> {
    let payment = sqlx::query_as("SELECT * FROM payments WHERE id = $1");
    let payment = payment.bind(id).fetch_optional(&app.pool).await?;
    payment.map(Json).ok_or(Error::NotFound)
}

/// What goes wrong, as callers are told it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("there is no such payment")]
    NotFound,
    #[error("the payment could not be made")]
    Provider(#[from] reqwest::Error),
    #[error("something went wrong")]
    Database(#[from] sqlx::Error),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        eprintln!("{self:?}");
        let status = match &self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Provider(_) => StatusCode::BAD_GATEWAY,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
