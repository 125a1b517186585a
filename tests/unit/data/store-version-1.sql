-- A store as gateways made it that knew no migrations, with one payment: sqlite3's dump of it.
BEGIN TRANSACTION;
CREATE TABLE changes (
	id INTEGER NOT NULL, 
	payment_id CHAR(32) NOT NULL, 
	changed_at DATETIME NOT NULL, 
	changed_by VARCHAR(64) NOT NULL, 
	from_status VARCHAR(10) NOT NULL, 
	to_status VARCHAR(10) NOT NULL, 
	note VARCHAR(500) NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(payment_id) REFERENCES payments (id)
);
INSERT INTO "changes" VALUES(1,'3f2b8c1e5a7d4e0b9c560d1e2f3a4b5c','2026-11-22 22:58:03.221824','gateway','PENDING','AUTHORIZED','');
CREATE TABLE meta (
	name VARCHAR(32) NOT NULL, 
	value VARCHAR(64) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('key_check','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc');
CREATE TABLE payments (
	id CHAR(32) NOT NULL, 
	merchant VARCHAR(64) NOT NULL, 
	idempotency_key VARCHAR(64), 
	fingerprint VARCHAR(64), 
	status VARCHAR(10) NOT NULL, 
	card_last4 VARCHAR(4) NOT NULL, 
	expiry_month INTEGER NOT NULL, 
	expiry_year INTEGER NOT NULL, 
	currency VARCHAR(3) NOT NULL, 
	amount BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	working_until DATETIME NOT NULL, 
	look_up_at DATETIME NOT NULL, 
	look_ups INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (merchant, idempotency_key), 
	CHECK (status IN ('AUTHORIZED', 'DECLINED', 'PENDING')), 
	CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL))
);
INSERT INTO "payments" VALUES('3f2b8c1e5a7d4e0b9c560d1e2f3a4b5c','default','kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','AUTHORIZED','8877',12,2099,'GBP',1050,'2026-11-22 10:15:30.123456','2026-11-22 10:15:40.123456','2026-11-22 10:15:40.123456',0);
CREATE INDEX payments_pending ON payments (look_up_at) WHERE status = 'PENDING';
CREATE INDEX payments_created_at ON payments (created_at);
CREATE INDEX ix_changes_payment_id ON changes (payment_id);
COMMIT;
